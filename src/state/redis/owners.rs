//! Owners of records, and the URLs that teams set.

use super::super::error::StateError;
use super::super::model::{MOST_AWAITING, Owner, Owning};
use super::super::pauses::{Endpoint, Resume};
use super::super::times::time;
use super::engine::{MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed, text_of};
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::redis::scripts::state::{OWN, OWNERS, RELEASE, RENEW_URL};
use crate::redis::{Budget, RedisKey};

impl Redis {
    pub(in super::super) async fn own(&self, owning: Owning) -> Result<(), StateError> {
        let Owning { account, id, tenant, reference, kind, awaits, tags, asked } = owning;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.reference(&record, &tenant, reference.as_ref());
        let hidden = reference.map(|text| self.secrecy.hide_reference(&record, &tenant, &text)).unwrap_or_default();
        let asked = self.theirs(asked).await?;
        let mut released: usize = self
            .run(&OWN, |call| {
                call.arg(&record).arg(tenant.as_str()).arg(&name).arg(hidden).arg(text_of(kind));
                call.arg(u8::from(awaits)).arg(asked).arg(MOST_AWAITING).arg(MOST_TOUCHED);
                self.persons(call, &tags);
            })
            .await?;
        if released > 0 {
            self.arrived.notify_one();
        }
        while released >= MOST_TOUCHED {
            released = self
                .run(&RELEASE, |call| {
                    call.arg(&record).arg(MOST_TOUCHED);
                })
                .await?;
        }
        Ok(())
    }

    pub(in super::super) async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        let record = self.secrecy.record(account, id);
        let rows: Vec<Fields> = self
            .run(&OWNERS, |call| {
                call.arg(&record);
            })
            .await?;
        let mut owners = Vec::with_capacity(rows.len());
        for row in rows {
            let [tenant, hidden, since]: &[_; 3] = row.as_slice().try_into().map_err(|_| StateError::Refused)?;
            let (Some(tenant), Some(since)) = (parsed(tenant), parsed(since)) else { continue };
            let reference = self.reference(&record, &tenant, hidden)?;
            owners.push(Owner { tenant, reference, since: time(since) });
        }
        Ok(owners)
    }

    pub(in super::super) async fn set_url(
        &self,
        tenant: &TenantName,
        kind: CallbackType,
        url: &str,
    ) -> Result<(), StateError> {
        let mut set = redis::cmd("HSET");
        set.arg(self.urls_of(tenant)).arg(kind.as_str()).arg(self.secrecy.hide_url(tenant, kind, url));
        let _: i64 = self.ask(&set).await?;
        self.resume(&[Endpoint { tenant: tenant.clone(), kind }], Resume::Automatic).await?;
        Ok(())
    }

    pub(in super::super) async fn delete_urls(&self, endpoints: &[Endpoint]) -> Result<(), StateError> {
        for Endpoint { tenant, kind } in endpoints {
            let mut delete = redis::cmd("HDEL");
            let _: i64 = self.ask(delete.arg(self.urls_of(tenant)).arg(kind.as_str())).await?;
        }
        self.resume(endpoints, Resume::Automatic).await?;
        Ok(())
    }

    pub(in super::super) async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        // There are at most as many URLs as types.
        let rows: Vec<(String, Vec<u8>)> = self.ask(redis::cmd("HGETALL").arg(self.urls_of(tenant))).await?;
        let mut urls = Vec::new();
        for (kind, hidden) in rows {
            let Ok(kind) = kind.parse() else { continue };
            let url = self.secrecy.show_url(tenant, kind, &hidden)?;
            let renewed = self.secrecy.renewed_url(tenant, kind, &url, &hidden);
            urls.push((kind, url));
            if let Some(renewed) = renewed {
                let mut renew = RENEW_URL.key(self.urls_of(tenant));
                renew.arg(kind.as_str()).arg(hidden).arg(renewed);
                let _: i64 = self.redis.script(&Budget::background(), &renew).await?;
            }
        }
        urls.sort();
        Ok(urls)
    }

    fn urls_of(&self, tenant: &TenantName) -> RedisKey {
        self.redis.keys().callback_urls(tenant)
    }
}
