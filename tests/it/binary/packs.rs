//! Packs follow checkouts, refunds and disputes, even if billing events are repeated or arrive out of order.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    admin::{ADMIN, gate},
    billing::{self, SECRET, now, send, signature, tells},
    process::{SERVICE_TOKEN, Serve, answer},
};
use crate::support::{World, eventually};

const SETTINGS: &[(&str, &str)] = &[
    ("QUOTA_GATE__BILLING__WEBHOOK_SECRET", SECRET),
    (
        "QUOTA_GATE__BILLING__PACKS",
        "{price_small={ap=50}, big_pack={ap=500, expires_after=\"365d\", priority=7}, prod_1={ap=20}}",
    ),
];

/// Makes the events about a payment.
type Events = Box<dyn Fn(&str) -> Vec<Value>>;

/// A session as Stripe's events have it, without line items.
fn checkout(id: &str, payment: &str, metadata: &Value) -> Value {
    json!({
        "id": format!("evt_{id}"), "object": "event", "type": "checkout.session.completed", "created": 100,
        "data": {"object": {
            "id": id, "object": "checkout.session", "mode": "payment", "payment_status": "paid", "created": now(),
            "payment_intent": payment, "amount_total": 500, "currency": "eur", "client_reference_id": null,
            "metadata": metadata,
        }},
    })
}

fn event(id: &str, kind: &str, object: &Value) -> Value {
    json!({"id": id, "object": "event", "type": kind, "created": 200, "data": {"object": object}})
}

fn refund_of(payment: &str, refunded: i64) -> Value {
    let charge = json!({
        "id": "ch_1", "object": "charge", "payment_intent": payment, "amount": 500, "amount_refunded": refunded,
        "refunded": refunded == 500, "status": "succeeded",
    });
    event(&format!("evt_refund_{payment}_{refunded}"), "charge.refunded", &charge)
}

async fn grants(gate: &Serve, user: &str) -> Vec<Value> {
    let path = format!("/api/chat/quota/grants?userUuid={user}");
    let (status, body) = answer(gate.request_as(SERVICE_TOKEN, Method::GET, &path)).await;
    assert_eq!(status.as_u16(), 200, "{body}");
    body["grants"].as_array().unwrap().clone()
}

async fn states(gate: &Serve, user: &str) -> Vec<String> {
    grants(gate, user).await.iter().map(|grant| grant["state"].as_str().unwrap().to_owned()).collect()
}

async fn consume(gate: &Serve, user: &str, ap: u32) -> u16 {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap});
    gate.post("/api/chat/quota/consume", body).await.0.as_u16()
}

#[tokio::test]
async fn a_paid_checkout_gives_its_pack_once() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let bought = checkout("cs_1", "pi_1", &json!({"userUuid": "ann", "pack": "big_pack"}));
    let mut unpaid = bought.clone();
    unpaid["data"]["object"]["payment_status"] = json!("unpaid");
    assert!(!tells(&gate, unpaid).await);
    assert!(tells(&gate, bought.clone()).await);
    assert!(!tells(&gate, bought.clone()).await);
    // A payment by bank transfer succeeds later, with an event of its own.
    let mut later = bought.clone();
    (later["id"], later["type"]) = (json!("evt_9"), json!("checkout.session.async_payment_succeeded"));
    assert!(!tells(&gate, later).await);
    let found = grants(&gate, "ann").await;
    assert_eq!(found.len(), 1);
    let grant = &found[0];
    assert_eq!((&grant["granted"], &grant["priority"], &grant["source"]), (&json!(500), &json!(7), &json!("pack")));
    assert_eq!((&grant["externalId"], &grant["createdBy"]), (&json!("cs_1/big_pack"), &json!("billing")));
    assert!(grant["expiresAt"].is_string());
    assert_eq!(consume(&gate, "ann", 600).await, 200);
    assert_eq!(consume(&gate, "ann", 1).await, 429);
}

#[tokio::test]
async fn line_items_count_by_price_product_or_lookup_key_and_quantity() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let mut bought = checkout("cs_1", "pi_1", &json!({}));
    bought["data"]["object"]["client_reference_id"] = json!("ann");
    let line = |id: &str, quantity: u32, price: Value| json!({"id": id, "object": "item", "quantity": quantity, "price": price});
    bought["data"]["object"]["line_items"] = json!({"object": "list", "data": [
        line("li_1", 2, json!({"id": "price_small", "product": "prod_9"})),
        line("li_2", 1, json!({"id": "price_8", "product": {"id": "prod_1", "object": "product"}})),
        line("li_3", 1, json!({"id": "price_7", "product": "prod_9", "lookup_key": "big_pack"})),
        line("li_4", 1, json!({"id": "price_shirt", "product": "prod_shirt"})),
    ]});
    assert!(tells(&gate, bought.clone()).await);
    assert!(!tells(&gate, bought).await);
    let mut ap: Vec<u64> = grants(&gate, "ann").await.iter().map(|grant| grant["granted"].as_u64().unwrap()).collect();
    ap.sort_unstable();
    assert_eq!(ap, [20, 100, 500]);
}

/// Each order of a purchase and what takes it back, with each event once and twice, ends in the same state.
#[tokio::test]
async fn refunds_and_disputes_void_what_is_left_in_every_order() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let dispute = |payment: &str| {
        event("evt_dispute", "charge.dispute.created", &json!({"id": "dp_1", "payment_intent": payment, "amount": 500}))
    };
    let refund = |payment: &str, amount: i64, status: &str| {
        let refund =
            json!({"id": "re_1", "object": "refund", "payment_intent": payment, "amount": amount, "status": status});
        event(&format!("evt_re_{amount}_{status}"), "refund.updated", &refund)
    };
    let cases: Vec<(&str, Events)> = vec![
        ("voided", Box::new(|payment| vec![refund_of(payment, 500)])),
        ("voided", Box::new(|payment| vec![refund_of(payment, 200), refund_of(payment, 500)])),
        ("live", Box::new(|payment| vec![refund_of(payment, 200), refund_of(payment, 499)])),
        ("voided", Box::new(move |payment| vec![dispute(payment)])),
        ("voided", Box::new(move |payment| vec![refund(payment, 500, "succeeded")])),
        ("live", Box::new(move |payment| vec![refund(payment, 500, "failed"), refund(payment, 100, "pending")])),
    ];
    for (number, (state, taken_back)) in cases.iter().enumerate() {
        for order in ["in order", "reversed", "rotated", "repeated"] {
            let user = format!("user-{number}-{}", order.len());
            let (session, payment) = (format!("cs_{user}"), format!("pi_{user}"));
            let purchase = checkout(&session, &payment, &json!({"userUuid": user, "pack": "price_small"}));
            let mut events = [vec![purchase], taken_back(&payment)].concat();
            match order {
                "reversed" => events.reverse(),
                "rotated" => events.rotate_left(1),
                "repeated" => events = [events.clone(), events].concat(),
                _ => {}
            }
            for event in events {
                tells(&gate, event).await;
            }
            assert_eq!(states(&gate, &user).await, [*state], "{number} {order}");
        }
    }
}

#[tokio::test]
async fn a_refund_takes_back_only_what_is_left() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    assert!(tells(&gate, checkout("cs_1", "pi_1", &json!({"userUuid": "ann", "pack": "price_small"}))).await);
    assert!(tells(&gate, checkout("cs_2", "pi_2", &json!({"userUuid": "ann", "pack": "prod_1"}))).await);
    assert_eq!(consume(&gate, "ann", 110).await, 200);
    assert!(tells(&gate, refund_of("pi_1", 500)).await);
    assert_eq!(consume(&gate, "ann", 21).await, 429);
    assert_eq!(consume(&gate, "ann", 20).await, 200, "the other pack is untouched");
}

#[tokio::test]
async fn purchases_that_would_give_nothing_are_refused_and_other_payments_are_ignored() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    for wrong in [
        checkout("cs_1", "pi_1", &json!({"userUuid": "ann", "pack": "unknown"})),
        checkout("cs_1", "pi_1", &json!({"pack": "big_pack"})),
        checkout("cs_1", "pi_1", &json!({"userUuid": "a b", "pack": "big_pack"})),
        event("evt_1", "checkout.session.completed", &json!({"id": "cs_1"})),
    ] {
        let body = wrong.to_string();
        let (status, problem) = send(&gate, &signature(SECRET, now(), &body), &body).await;
        assert_eq!(status.as_u16(), 400, "{body}: {problem}");
    }
    assert!(!tells(&gate, checkout("cs_1", "pi_1", &json!({"userUuid": "ann"}))).await);
    let mut subscription = checkout("cs_1", "pi_1", &json!({"userUuid": "ann", "pack": "big_pack"}));
    subscription["data"]["object"]["mode"] = json!("subscription");
    assert!(!tells(&gate, subscription).await);
    assert!(!tells(&gate, event("evt_1", "charge.refunded", &json!({"id": "ch_1", "amount": 1}))).await);
    assert_eq!(world.number("select count(*) from grants").await, 0);
    // Without packs, payments are not looked at.
    let without = super::admin::gate(&world, &SETTINGS[..1]).await;
    assert!(!tells(&without, checkout("cs_1", "pi_1", &json!({"pack": "big_pack"}))).await);
}

#[tokio::test]
async fn packs_need_a_plan_only_by_setting_and_lapse_with_the_last_subscription() {
    const LEVELS: (&str, &str) = ("QUOTA_GATE__BILLING__LEVELS", "{price_basic=\"basic\", price_plus=\"plus\"}");
    const NEED_PLAN: (&str, &str) = ("QUOTA_GATE__BILLING__PACKS_NEED_PLAN", "true");
    for needs_plan in [false, true] {
        let world = World::new().await;
        let settings = [SETTINGS, &[LEVELS], if needs_plan { &[NEED_PLAN][..] } else { &[] }].concat();
        let gate = gate(&world, &settings).await;
        // A pack that was bought before there is a plan stays until one has lapsed.
        assert!(tells(&gate, checkout("cs_1", "pi_1", &json!({"userUuid": "ann", "pack": "price_small"}))).await);
        assert!(!tells(&gate, billing::event("evt_0", "deleted", 50, "sub_0", "price_basic")).await);
        assert!(tells(&gate, billing::event("evt_1", "created", 100, "sub_1", "price_basic")).await);
        assert!(tells(&gate, billing::event("evt_2", "created", 100, "sub_2", "price_plus")).await);
        let gift = json!({"userUuid": "ann", "ap": 5, "source": "gift", "reason": "r", "externalId": "g-1"});
        let given = answer(gate.request_as(ADMIN, Method::POST, "/api/chat/quota/grants").json(&gift)).await;
        assert_eq!(given.0.as_u16(), 201, "{}", given.1);
        assert!(tells(&gate, billing::event("evt_3", "deleted", 200, "sub_2", "price_plus")).await);
        assert_eq!(states(&gate, "ann").await, ["live", "live"], "another subscription pays");
        let ended = billing::event("evt_4", "deleted", 300, "sub_1", "price_basic");
        assert!(tells(&gate, ended.clone()).await);
        let pack = if needs_plan { "voided" } else { "live" };
        assert_eq!(states(&gate, "ann").await, ["live", pack], "a gift is no pack");
        // Redis has it, too: 1,000 of plus, which lasts until the period ends, and what is left of the grants.
        let all = if needs_plan { 1_005 } else { 1_055 };
        assert_eq!((consume(&gate, "ann", all + 1).await, consume(&gate, "ann", all).await), (429, 200));
        // A repeated event and a new subscription bring nothing back.
        assert!(!tells(&gate, ended).await);
        tells(&gate, billing::event("evt_5", "created", 400, "sub_3", "price_basic")).await;
        let after = if needs_plan { "voided" } else { "used" };
        eventually("the charge is flushed", async || states(&gate, "ann").await == ["used", after]).await;
    }
}
