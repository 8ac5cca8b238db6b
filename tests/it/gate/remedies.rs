//! Remedies: each one that a denial names lets the message pass once it is applied.

use chrono::TimeDelta;
use quota_gate::{
    domain::{
        ap::Ap,
        author::Author,
        decision::{Decision, Denied},
        level::{LevelName, LevelTerms},
        level_change::Effective,
        meter::MeterCode,
        model_costs::ModelCosts,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        remedy::{Asked, OfferedPack, Offers, Remedy},
        window::LevelLimits,
    },
    gate::{ChangeLevel, Consume},
};

use crate::support::{GateUnderTest, World, consume, user};

fn levels() -> Vec<(LevelName, LevelTerms)> {
    let level = |name, quota, windows| {
        let limits = LevelLimits::parse(windows, None).unwrap();
        (LevelName::parse(name).unwrap(), LevelTerms { quota: Ap::new(quota), limits })
    };
    vec![level("free", 100, "5h ap 50"), level("basic", 200, "5h ap 55"), level("plus", 300, "5h ap 80")]
}

fn author() -> Author {
    Author::program("test", None).unwrap()
}

async fn decide(gate: &GateUnderTest, who: &str, ap: u32) -> Option<Denied> {
    let message = Consume { ap: Ap::new(ap), ..consume(who, 1) };
    match gate.gate.consume(message).await.unwrap() {
        Decision::Denied(denied) => Some(denied),
        Decision::Allowed(_) => None,
        Decision::Passed(passed) => panic!("{passed:?}"),
    }
}

#[tokio::test]
async fn each_remedy_lets_the_denied_message_pass() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate_with(|tuning| tuning.levels = levels()).await;
    let costs = [("default", 1), ("large", 30), ("mini", 2)].map(|(name, ap)| (name.to_owned(), ap));
    let costs = ModelCosts::new(&costs.into()).unwrap();
    let packs = [("p500", 500), ("p30", 30)].map(|(name, ap)| OfferedPack { name: name.into(), ap: Ap::new(ap) });
    let known = gate.gate.levels();
    let offers = Offers { costs: &costs, packs: &packs, levels: &known, meter: MeterCode::CHAT };
    let asked = Asked { models: &[], priced_answers: Some(1) };

    let mut until = None;
    // One user for each remedy, each with the same denial.
    for who in ["waits", "takes-mini", "buys", "upgrades"] {
        assert!(gate.charges(who, 48).await);
        let denied = decide(&gate, who, 30).await.expect("48 + 30 > 50");
        let remedies = denied.remedies(asked, offers, gate.gate.calendar());
        let [Remedy::Wait(at), Remedy::Model { ap, .. }, Remedy::Pack(pack), Remedy::Level { level, .. }] =
            remedies[..]
        else {
            panic!("{remedies:?}")
        };
        assert_eq!((level.name.as_str(), pack.name.as_str()), ("plus", "p30"), "basic would not admit it");
        match who {
            "takes-mini" => assert_eq!(decide(&gate, who, ap.get()).await, None),
            "buys" => {
                let grant = NewGrant {
                    meter: MeterCode::CHAT,
                    user: user(who),
                    ap: pack.ap,
                    expires_at: None,
                    priority: Priority::DEFAULT,
                    source: GrantSource::parse("pack").unwrap(),
                    external_id: ExternalId::parse("order-1").unwrap(),
                };
                gate.gate.give_grant(&grant, &author()).await.unwrap();
                assert_eq!(decide(&gate, who, 30).await, None);
            }
            "upgrades" => {
                let (user, level, effective) = (user(who), level.name.clone(), Effective::Now);
                let (anchor_day, if_version, author) = (None, None, author());
                let change = ChangeLevel { user, level, effective, anchor_day, if_version, author };
                gate.gate.change_level(change).await.unwrap();
                assert_eq!(decide(&gate, who, 30).await, None);
            }
            _ => until = Some(at),
        }
    }
    let until = until.expect("one user waits");
    world.set_time(&(until - TimeDelta::seconds(1)).to_rfc3339()).await;
    assert!(decide(&gate, "waits", 30).await.is_some());
    world.set_time(&until.to_rfc3339()).await;
    assert_eq!(decide(&gate, "waits", 30).await, None);
    gate.flush_and_verify().await;
}
