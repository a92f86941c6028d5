//! The options of a simulator, as the command line takes them and as plain values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The text after the flags in `--help`: an example, the rules of the invented data, and the faults.
const RULES: &str = "\
Example:
  iluma-gateway simulate --listen 127.0.0.1:8090 --callback-delay 2s
  curl -u iluma_development_me: -d 'bank_account_number=1234567890&bank_code=BCA' \\
       http://127.0.0.1:8090/v1.1/identity/bank_account_data_requests

Answers are invented from the input and always the same.
How a bank account number ends decides:
  00  not found                      99  TEMPORARY_NETWORK_ERROR, not charged
  88  a virtual account              77  found, need_review
  66  PENDING for ever               55  known at once, never PENDING
  33  booleans as strings            22  the status in lower case
How a NIK, NPWP or phone number ends:
  00  not found                      99  TEMPORARY_NETWORK_ERROR, not charged
  11  KTP: the name does not match   01 to 10  id card: the documented failures
A word in a CFT name: HANTUMALAM has one match, HANTULAUT has two.
A word in a file's name: unreadable, unrecognized, neterror, noface, mismatch.
A word in a capture's reference_id: sim-review, sim-fail, sim-abandon.

Faults: the header `x-sim-fault: kind[=value]`, or POST /_sim/faults.
GET /_sim describes these, the statistics, and the list of received requests.";

/// A simulated Iluma to develop and test against
///
/// Every route of Iluma's API on invented data, with callbacks, magic replies, faults on demand and a count of what the
/// calls would have cost.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = RULES)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Accept only this API key (repeat it for more); without it any key that begins with iluma_development_,
    /// iluma_live_ or iluma_production_ is accepted
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Time that a request stays PENDING before its result and its callback
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub callback_delay: Duration,
    /// Answer bank requests with the result at once instead of PENDING first
    #[arg(long)]
    pub answer_at_once: bool,
    /// Time after a request in which the same bank account is answered at once
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub recent: Duration,
    /// Delay of every answer, after the request was processed
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub latency: Duration,
    /// The largest number of requests a second of each key; further ones are answered RATE_LIMIT_EXCEEDED
    #[arg(long, value_name = "N")]
    pub requests_per_second: Option<u32>,
    /// Value of `retry-after` on 429 (whole seconds)
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub retry_after: Duration,
    /// Count calls with development keys as charged too
    #[arg(long)]
    pub charge_development: bool,
    /// Callback token of every key, instead of one derived from the key
    #[arg(long, value_name = "TOKEN")]
    pub callback_token: Option<String>,
    /// Attempts to send a callback until it is answered 2xx
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub callback_attempts: u32,
    /// Pause after a callback's first failed attempt; it doubles with each attempt
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub callback_retry: Duration,
    /// Treat paths that begin with NEW like those that begin with OLD (repeat for more), as if Iluma added a route
    #[arg(long = "alias", value_name = "NEW=OLD")]
    pub aliases: Vec<Alias>,
    /// Certificate chain for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// The behaviour of a simulator. Start from the default and change what matters.
#[derive(Clone, Debug)]
pub struct Options {
    /// TLS settings. ALPN chooses h1 or h2, and both are offered if the settings name no protocol. Without TLS settings
    /// the simulator serves h1 in clear, and h2 by prior knowledge.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The accepted keys. If the list is empty, every key with one of Iluma's prefixes is accepted.
    pub keys: Vec<String>,
    /// The time that a request stays PENDING before its result and its callback.
    pub callback_delay: Duration,
    /// True if bank requests are PENDING first; if false, the result is answered at once.
    pub pending_first: bool,
    /// The time after a bank's result in which another request about the same account gets the result at once.
    pub recent: Duration,
    /// The delay of every answer, after the request was processed and charged.
    pub latency: Duration,
    /// The requests that each key may make in a second; `None` means no limit.
    pub requests_per_second: Option<u32>,
    /// The value of `retry-after` in the answer RATE_LIMIT_EXCEEDED, in whole seconds. A fault may name another value.
    pub retry_after: Duration,
    /// True if calls with development keys count as charged too.
    pub charge_development: bool,
    /// The callback token of every key; `None` derives one from each key.
    pub callback_token: Option<String>,
    /// The largest number of attempts to send a callback.
    pub callback_attempts: u32,
    /// The pause after a callback's first failed attempt; it doubles with each attempt.
    pub callback_retry: Duration,
    /// The longest pause between two attempts to send a callback.
    pub callback_retry_max: Duration,
    /// The longest time of one attempt to send a callback.
    pub callback_timeout: Duration,
    /// TLS settings for callbacks to https; `None` takes the platform's root certificates.
    pub callback_tls: Option<Arc<rustls::ClientConfig>>,
    /// Path prefixes that are treated like other prefixes, to simulate a route that Iluma adds.
    pub aliases: Vec<Alias>,
    /// The largest number of stored results; the oldest are removed first.
    pub max_records: usize,
    /// The number of requests kept for `GET /_sim/requests`.
    pub max_requests: usize,
    /// The largest number of bytes that are kept of each request's body.
    pub max_request_body: usize,
    /// The largest number of connections at a time. Further connections wait in the listener's queue.
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            keys: Vec::new(),
            callback_delay: Duration::from_millis(500),
            pending_first: true,
            recent: Duration::from_secs(3600),
            latency: Duration::ZERO,
            requests_per_second: None,
            retry_after: Duration::from_secs(1),
            charge_development: false,
            callback_token: None,
            callback_attempts: 5,
            callback_retry: Duration::from_secs(1),
            callback_retry_max: Duration::from_secs(3600),
            callback_timeout: Duration::from_secs(10),
            callback_tls: None,
            aliases: Vec::new(),
            // A record has about 1 KiB: 100 MB at most.
            max_records: 100_000,
            max_requests: 1000,
            // A thousand requests of this size are 16 MiB at most.
            max_request_body: 16 * 1024,
            max_connections: 10_000,
        }
    }
}

impl From<&Args> for Options {
    /// Takes everything except TLS, whose files [`super::run`] reads.
    fn from(args: &Args) -> Self {
        Self {
            keys: args.keys.clone(),
            callback_delay: args.callback_delay,
            pending_first: !args.answer_at_once,
            recent: args.recent,
            latency: args.latency,
            requests_per_second: args.requests_per_second,
            retry_after: args.retry_after,
            charge_development: args.charge_development,
            callback_token: args.callback_token.clone(),
            callback_attempts: args.callback_attempts,
            callback_retry: args.callback_retry,
            aliases: args.aliases.clone(),
            ..Self::default()
        }
    }
}

/// A path prefix that is treated like another prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The prefix of the caller's path.
    pub new: String,
    /// The prefix that replaces it.
    pub old: String,
}

impl FromStr for Alias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((new, old)) if new.starts_with('/') && old.starts_with('/') => {
                Ok(Self { new: new.into(), old: old.into() })
            }
            _ => Err("two paths are expected, /new/path=/old/path".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_flags_default_to_the_options_default() {
        let args = Command::parse_from(["sim"]).args;
        let (parsed, default) = (Options::from(&args), Options::default());
        assert_eq!(format!("{parsed:?}"), format!("{default:?}"));
        assert_eq!(args.listen.port(), 8090);
    }

    #[test]
    fn flags_reach_the_options() {
        let flags = ["sim", "--key", "k", "--recent", "2m", "--answer-at-once", "--alias", "/v3/x=/v1/identity/y"];
        let options = Options::from(&Command::parse_from(flags).args);
        assert_eq!(options.keys, ["k"]);
        assert_eq!(options.recent, Duration::from_secs(120));
        assert!(!options.pending_first);
        assert_eq!(options.aliases, [Alias { new: "/v3/x".into(), old: "/v1/identity/y".into() }]);
        assert!(Command::try_parse_from(["sim", "--alias", "x"]).is_err());
    }

    #[test]
    fn the_help_has_an_example_and_the_rules() {
        let help = Command::try_parse_from(["sim", "--help"]).err().unwrap().to_string();
        assert!(help.contains("Example:") && help.contains("HANTUMALAM"), "{help}");
    }
}
