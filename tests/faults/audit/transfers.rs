//! I11 of transfers: each that was acknowledged left the sender once and reached the receiver whole, or was lost for
//! both.

use std::collections::HashMap;

use sqlx::Row;
use uuid::Uuid;

use super::{Allowed, Audit};
use crate::{installation::Installation, load::user, plans::Plans};

impl Audit {
    pub(super) async fn transfers_arrive(
        &mut self,
        installation: &Installation,
        plans: &Plans,
        allowed: &Allowed,
    ) -> anyhow::Result<()> {
        let sent = "select uuid, user_uuid, (select sum(ap)::bigint from unnest(grant_aps) as parts (ap)) as ap
            from chat_usage_logs where kind = 'transfer'";
        let received = "select source_event as uuid, min(user_uuid) as user_uuid, sum(granted)::bigint as ap
            from grants where source_event is not null group by source_event";
        let (sent, received) = (moved(installation, sent).await?, moved(installation, received).await?);
        if sent.len() != received.len() {
            self.violated("I11", format!("{} transfers were sent, {} received", sent.len(), received.len()));
        }
        for transfer in &plans.transfers {
            let Some((id, at)) = transfer.accepted else { continue };
            let expected = |who: usize| (user(who), i64::from(transfer.ap));
            match (sent.get(&id), received.get(&id)) {
                (None, None) if allowed.lost_at(at) => {}
                (Some(out), Some(arrived)) if *out == expected(transfer.from) && *arrived == expected(transfer.to) => {}
                found => self.violated("I11", format!("{transfer:?} is {found:?}")),
            }
        }
        // Of those without an answer, each is there at most once: ids follow from the key.
        let unanswered = plans.transfers.iter().filter(|transfer| transfer.accepted.is_none()).count();
        let answered = plans.transfers.iter().filter_map(|transfer| transfer.accepted);
        let unknown = sent.len() - answered.filter(|(id, _)| sent.contains_key(id)).count();
        if unknown > unanswered {
            self.violated("I11", format!("{unknown} transfers were not asked for"));
        }
        Ok(())
    }
}

/// User and AP of each transfer.
async fn moved(installation: &Installation, query: &'static str) -> anyhow::Result<HashMap<Uuid, (String, i64)>> {
    let rows = sqlx::query(query).fetch_all(&installation.pool).await?;
    rows.iter().map(|row| Ok((row.try_get("uuid")?, (row.try_get("user_uuid")?, row.try_get("ap")?)))).collect()
}
