//! I11: grants conserve. granted = charged + transferred + left, charged is what the log says, and each grant that was
//! acknowledged exists once, whatever was repeated. A grant that was voided pays only for holds that were made before.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    time::Duration,
};

use sqlx::Row;
use uuid::Uuid;

use super::{Allowed, Audit, LogRow};
use crate::{
    history::{History, Kind, Outcome},
    installation::Installation,
    load::user,
    plans::{Pack, Plans},
};

/// Time in which all gates hear of a void while nothing is disturbed.
const HEARD_MAX: Duration = Duration::from_secs(2);

/// A grant in Postgres.
struct Grant {
    id: Uuid,
    user: String,
    number: i64,
    external_id: Option<String>,
    granted: i64,
    charged: i64,
    transferred: i64,
    /// Whether a transfer made it.
    is_received: bool,
}

impl Audit {
    /// `disturbed`: from the fault to the recovery, when gates may hear late of a void.
    pub(super) async fn grants_conserve(
        &mut self,
        installation: &Installation,
        rows: &[LogRow],
        (history, plans): (&History, &Plans),
        allowed: &Allowed,
        disturbed: &Range<Duration>,
    ) -> anyhow::Result<()> {
        let grants = grants(installation).await?;
        self.packs = plans.packs.iter().filter(|pack| pack.bought.is_some()).count();
        self.paid_by_grants = rows.iter().flat_map(|row| &row.grants).map(|(_, ap)| u64::from(*ap)).sum();
        for wrong in &plans.wrong {
            self.violated("answers", wrong);
        }
        for row in rows {
            let parts: u32 = row.grants.iter().map(|(_, ap)| ap).sum();
            if row.plan + parts != row.ap {
                let (event, plan, ap) = (row.event, row.plan, row.ap);
                self.violated("I11", format!("{event}: {plan} AP of the plan and {parts} of grants are not {ap} AP"));
            }
        }
        self.charges_are_in_the_log(&grants, rows, history, allowed);
        self.packs_exist_once(&grants, plans, allowed);
        self.voided_pays_nothing(&grants, rows, (history, plans), disturbed);
        Ok(())
    }

    fn charges_are_in_the_log(&mut self, grants: &[Grant], rows: &[LogRow], history: &History, allowed: &Allowed) {
        let mut logged: HashMap<(&str, i64), i64> = HashMap::new();
        for row in rows {
            for (number, ap) in &row.grants {
                *logged.entry((&row.user, *number)).or_default() += i64::from(*ap);
            }
        }
        for grant in grants {
            let (who, number, charged) = (&grant.user, grant.number, grant.charged);
            let sum = logged.remove(&(who.as_str(), number)).unwrap_or(0);
            // Rows of a Postgres that was restored may be gone with the grant's own charges.
            if sum != charged {
                self.violated("I11", format!("grant {number} of {who}: {charged} AP charged, {sum} in the log"));
            }
            let left = grant.granted - charged - grant.transferred;
            let beside = i64::try_from(allowed.beside(who, history)).unwrap_or(i64::MAX);
            if left + beside < 0 {
                let granted = grant.granted;
                self.violated("I11", format!("grant {number} of {who} paid {} of {granted} AP", granted - left));
            }
        }
        for ((who, number), ap) in logged {
            self.violated("I11", format!("{ap} AP of {who} were paid by grant {number}, which does not exist"));
        }
    }

    fn packs_exist_once(&mut self, grants: &[Grant], plans: &Plans, allowed: &Allowed) {
        let of = |pack: &Pack, grant: &Grant| {
            grant.user == user(pack.user) && grant.external_id.as_deref() == Some(pack.external_id.as_str())
        };
        for pack in &plans.packs {
            let made: Vec<&Grant> = grants.iter().filter(|grant| of(pack, grant)).collect();
            let (who, order) = (user(pack.user), &pack.external_id);
            match (pack.bought, made.as_slice()) {
                (Some((_, at)), []) if allowed.postgres_restored && allowed.lost_at(at) => {}
                (Some((id, _)), [grant]) if grant.id == id && grant.granted == i64::from(pack.ap) => {}
                (None, []) => {}
                (None, [grant]) if grant.granted == i64::from(pack.ap) => {}
                (bought, made) => {
                    let made: Vec<(Uuid, i64)> = made.iter().map(|grant| (grant.id, grant.granted)).collect();
                    let ap = pack.ap;
                    self.violated(
                        "I11",
                        format!("{who} bought {order} of {ap} AP, {bought:?}, but the grants are {made:?}"),
                    );
                }
            }
        }
        for grant in grants.iter().filter(|grant| !grant.is_received) {
            // Charges of a grant that a restored Postgres has lost make it again, without what it was bought by.
            let is_lost = allowed.postgres_restored && grant.external_id.is_none();
            let asked = is_lost || plans.packs.iter().any(|pack| of(pack, grant));
            if !asked {
                self.violated("I11", format!("grant {} of {} was not asked for", grant.number, grant.user));
            }
        }
    }

    fn voided_pays_nothing(
        &mut self,
        grants: &[Grant],
        rows: &[LogRow],
        (history, plans): (&History, &Plans),
        disturbed: &Range<Duration>,
    ) {
        let logged: HashMap<Uuid, &LogRow> = rows.iter().map(|row| (row.event, row)).collect();
        let charged = |number: i64, event: Uuid| {
            logged.get(&event).is_some_and(|row| row.grants.iter().any(|(paying, _)| *paying == number))
        };
        for pack in &plans.packs {
            let (Some((id, _)), Some(voided)) = (pack.bought, pack.voided) else { continue };
            let Some(grant) = grants.iter().find(|grant| grant.id == id) else { continue };
            let calm = |sent: Duration| sent > voided + HEARD_MAX && (sent < disturbed.start || voided > disturbed.end);
            let late: HashSet<Uuid> = history
                .of(&user(pack.user))
                .filter(|event| calm(event.sent))
                .filter_map(|event| match (event.kind, event.outcome) {
                    (Kind::Consume, Outcome::Charged { event, degraded: false, .. }) => Some(event),
                    (Kind::Reserve, Outcome::Held { hold, degraded: false }) => Some(hold),
                    _ => None,
                })
                .collect();
            if let Some(event) = late.into_iter().find(|event| charged(grant.number, *event)) {
                let (number, who) = (grant.number, &grant.user);
                self.violated("I11", format!("grant {number} of {who}, voided at {voided:?}, paid for {event} later"));
            }
        }
    }
}

async fn grants(installation: &Installation) -> anyhow::Result<Vec<Grant>> {
    let columns = "select id, user_uuid, coalesce(number, 0) as number, external_id, granted, charged, transferred,
        source_event is not null as is_received from grants";
    let rows = sqlx::query(columns).fetch_all(&installation.pool).await?;
    rows.iter()
        .map(|row| {
            Ok(Grant {
                id: row.try_get("id")?,
                user: row.try_get("user_uuid")?,
                number: row.try_get("number")?,
                external_id: row.try_get("external_id")?,
                granted: row.try_get("granted")?,
                charged: row.try_get("charged")?,
                transferred: row.try_get("transferred")?,
                is_received: row.try_get("is_received")?,
            })
        })
        .collect()
}
