//! Tests of the sessions of the console and of the team portal. State keeps them, so that a restart ends none and every
//! node knows them.

use crate::support::{Answer, Redis, Rig, ask};
use iluma_gateway::base::byte_size::ByteSize;
use std::time::Duration;

const PAGE: &str = "/_gateway/";
const TOKENS: &str = "tokens = { night = { token = { env = \"NIGHT\" }, role = \"operator\" } }";
const NIGHT: &str = "a-token-of-an-operator";

/// A browser that is logged in to the console or the portal. It can send its cookie to any node.
struct Browser {
    cookie: String,
    csrf: String,
    pages: Pages,
}

#[derive(Clone, Copy)]
enum Pages {
    Console,
    Portal,
}

impl Pages {
    const BOTH: [Self; 2] = [Self::Console, Self::Portal];

    fn url(self, node: &Rig, which: Which) -> String {
        match (self, which) {
            (Self::Console, Which::Page) => node.admin_url("/"),
            (Self::Console, Which::LogIn) => node.admin_url("/console/login"),
            (Self::Console, Which::LogOut) => node.admin_url("/console/logout"),
            (Self::Console, Which::Api) => node.admin_url("/v1/tenants"),
            (Self::Portal, Which::Page) => node.url(PAGE),
            (Self::Portal, Which::LogIn) => node.url("/_gateway/login"),
            (Self::Portal, Which::LogOut) => node.url("/_gateway/logout"),
            (Self::Portal, Which::Api) => node.url("/_gateway/usage"),
        }
    }

    async fn try_log_in(self, node: &Rig) -> Answer {
        let form = match self {
            Self::Console => format!("token={}", node.secret("ADMIN")),
            Self::Portal => format!("key={}", node.key("lending")),
        };
        ask("POST", self.url(node, Which::LogIn)).form(form).send().await
    }

    async fn log_in(self, node: &Rig) -> Browser {
        Browser::of(self, node, &self.try_log_in(node).await).await
    }
}

#[derive(Clone, Copy)]
enum Which {
    Page,
    LogIn,
    LogOut,
    Api,
}

impl Browser {
    /// Makes a browser from the answer to a log-in: takes its cookie, and reads the CSRF token in the page.
    async fn of(pages: Pages, node: &Rig, answer: &Answer) -> Self {
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
        let page = ask("GET", pages.url(node, Which::Page)).header("cookie", &cookie).send().await.text();
        let (_, after) = page.split_once("name=\"csrf-token\" content=\"").expect("a value");
        Self { csrf: after.split('"').next().expect("a value").to_owned(), cookie, pages }
    }

    async fn status(&self, node: &Rig) -> u16 {
        ask("GET", self.pages.url(node, Which::Api)).header("cookie", &self.cookie).send().await.status
    }

    async fn log_out(&self, node: &Rig) -> Answer {
        let order = ask("POST", self.pages.url(node, Which::LogOut)).header("cookie", &self.cookie);
        order.form(format!("csrf={}", self.csrf)).send().await
    }
}

#[tokio::test]
async fn every_node_knows_a_session_and_its_end() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    for pages in Pages::BOTH {
        let browser = pages.log_in(&a).await;
        assert_eq!((browser.status(&a).await, browser.status(&b).await), (200, 200));
        // The CSRF token, which orders need, is valid on every node.
        assert_eq!(browser.log_out(&b).await.status, 303);
        assert_eq!((browser.status(&a).await, browser.status(&b).await), (401, 401));
    }
    let made = b.operator("POST", "/v1/tenants/lending/keys").json("{}").send().await.json();
    let log_in = ask("POST", a.url("/_gateway/login")).form(format!("key={}", made["key"].as_str().expect("a key")));
    let browser = Browser::of(Pages::Portal, &a, &log_in.send().await).await;
    assert_eq!((browser.status(&a).await, browser.status(&b).await), (200, 200));
    let path = format!("/v1/tenants/lending/keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(b.operator("DELETE", &path).send().await.status, 200);
    assert_eq!((browser.status(&a).await, browser.status(&b).await), (401, 401), "the key was revoked");

    let (known, late) = (Pages::Console.log_in(&a).await, Pages::Console.log_in(&b).await);
    let a = a.restart().await;
    assert_eq!((known.status(&a).await, late.status(&a).await), (200, 200), "after a restart");
    let names: Vec<Vec<u8>> = redis.ask(redis::cmd("KEYS").arg("*session*"));
    assert!(names.len() >= 3 && names.iter().all(|name| name.starts_with(b"{iluma-gateway:")), "{names:?}");
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn sessions_outlive_a_restart_of_a_single_node() {
    let mut rig = Rig::start().await;
    let mut browsers = Vec::new();
    for pages in Pages::BOTH {
        browsers.push(pages.log_in(&rig).await);
    }
    for _ in 0..2 {
        rig = rig.restart().await;
        for browser in &browsers {
            assert_eq!(browser.status(&rig).await, 200);
        }
    }
    for browser in &browsers {
        assert_eq!(browser.log_out(&rig).await.status, 303);
    }
    let rig = rig.restart().await;
    for browser in &browsers {
        assert_eq!(browser.status(&rig).await, 401, "the end outlives it too");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_session_ends_after_half_an_hour_without_a_request_and_after_twelve_hours_in_all() {
    let rig = Rig::start().await;
    let (console, portal) = (Pages::Console.log_in(&rig).await, Pages::Portal.log_in(&rig).await);
    let idle = Pages::Console.log_in(&rig).await;
    let step = Duration::from_secs(25 * 60);
    for minutes in (25..720).step_by(25) {
        rig.clock.advance(step);
        let both = (console.status(&rig).await, portal.status(&rig).await);
        assert_eq!(both, (200, 200), "after {minutes} minutes");
    }
    assert_eq!(idle.status(&rig).await, 401);
    rig.clock.advance(step);
    assert_eq!((console.status(&rig).await, portal.status(&rig).await), (401, 401));
    rig.stop().await;
}

#[tokio::test]
async fn a_session_of_the_console_ends_with_its_token() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).section("admin", TOKENS).secret("NIGHT", NIGHT).start().await;
    let b = a.another().await;
    let log_in = ask("POST", a.admin_url("/console/login")).form(format!("token={NIGHT}")).send().await;
    let browser = Browser::of(Pages::Console, &a, &log_in).await;
    assert_eq!((browser.status(&a).await, browser.status(&b).await), (200, 200));
    a.app.reload(&a.settings(|text| text.replace(TOKENS, "")).expect("settings")).expect("a reload");
    assert_eq!(browser.status(&a).await, 401);
    a.app.reload(&a.settings(|text| text).expect("settings")).expect("a reload");
    assert_eq!((browser.status(&a).await, browser.status(&b).await), (401, 401), "the token does not bring it back");
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn while_redis_is_out_nobody_logs_in_and_a_node_goes_on_with_the_sessions_that_it_has_read() {
    let mut redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let (console, portal) = (Pages::Console.log_in(&a).await, Pages::Portal.log_in(&a).await);
    redis.kill();
    a.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    b.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    for (pages, browser) in [(Pages::Console, &console), (Pages::Portal, &portal)] {
        let refused = pages.try_log_in(&a).await;
        assert_eq!((refused.status, refused.header("x-gateway-error")), (503, "state_unavailable"));
        assert_eq!(refused.header("content-type"), "text/html; charset=utf-8");
        assert!(refused.header("set-cookie").is_empty() && !refused.header("retry-after").is_empty());
        assert!(refused.text().contains("<div role=\"alert\">sessions "), "{}", refused.text());
        assert_eq!(browser.status(&a).await, 200, "it was read there");
        let unknown = ask("GET", pages.url(&b, Which::Api)).header("cookie", &browser.cookie).send().await;
        unknown.is_rejection(503, "SERVICE_UNAVAILABLE");
        assert_eq!(unknown.header("x-gateway-error"), "state_unavailable");
        let page = ask("GET", pages.url(&b, Which::Page)).header("cookie", &browser.cookie).send().await;
        assert_eq!((page.status, page.text().contains("type=\"password\"")), (503, true));
        assert_eq!(browser.log_out(&a).await.status, 503);
        assert_eq!(browser.status(&a).await, 503, "it has ended here");
    }
    assert_eq!(b.operator("GET", "/v1/tenants").send().await.status, 200, "a token works");
    assert_eq!(b.ask("lending", "GET", "/_gateway/openapi.json").send().await.status, 200, "a key works");
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn below_the_disks_reserve_nobody_logs_in() {
    let rig = Rig::start().await;
    let browser = Pages::Console.log_in(&rig).await;
    let reserve = ByteSize::mib(1 << 40);
    let rig = rig.changed(|text| text.replace("[state]\n", &format!("[state]\ndisk_reserve = \"{reserve}\"\n")));
    let rig = rig.restart().await;
    for pages in Pages::BOTH {
        let refused = pages.try_log_in(&rig).await;
        assert_eq!((refused.status, refused.header("x-gateway-error")), (503, "state_unavailable"));
    }
    assert_eq!(browser.status(&rig).await, 200, "a session from before");
    rig.stop().await;
}
