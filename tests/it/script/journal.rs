//! The exact bytes of the journal: what users without new parts cost is what they always cost.

use quota_gate::{
    domain::{
        ap::Ap,
        calendar::Period,
        hold::{Reservation, Ttl},
        journal::StreamId,
        model_name::ModelName,
        token_kinds::TokenKinds,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    store::redis::{Operation, ReplyStatus},
};
use uuid::Uuid;

use super::property::{Harness, seed};
use crate::support;

fn consume(event: u8, tokens: Tokens) -> Operation {
    Operation::Consume {
        cost: Ap::new(5),
        event: Uuid::from_bytes([event; 16]),
        session: SessionId::parse("s").unwrap(),
        tokens,
        model: Some(ModelName::parse("m").unwrap()),
        idempotency: None,
    }
}

fn commit(hold: u8, ap: u32, tokens: Tokens, harness: &Harness, user: &UserId) -> Operation {
    let reservation = Reservation {
        hold: Uuid::from_bytes([hold; 16]),
        user: user.clone(),
        session: SessionId::parse("s").unwrap(),
        ap: Ap::new(3),
        period: Period::from_id(202_611).unwrap(),
        expires_at: harness.clock.now() + chrono::TimeDelta::seconds(60),
        generation: 1,
        granted: Ap::ZERO,
        made_at: None,
        meter: quota_gate::domain::meter::MeterCode::CHAT,
    };
    Operation::Commit {
        reservation,
        ap: Ap::new(ap),
        tokens,
        model: None,
        expiry_day: quota_gate::domain::calendar::Day::from_number(0),
        adopt: false,
        accepted_at: None,
        idempotency: None,
    }
}

/// An event of bob, level 1, November 2026, 11 tokens. `rest` is its model and what follows.
fn event(kind: u8, (ap, overage): (u8, u8), id: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 1, 3, 23, 115, 0, 0, 0, ap, 0, 0, 0, overage];
    bytes.extend([id; 16]);
    bytes.extend([0, 0, 0, 11, 3, b'b', b'o', b'b', 1, b's']);
    bytes.extend_from_slice(rest);
    bytes
}

#[tokio::test]
async fn only_an_entry_with_an_extended_event_has_format_3() {
    let server = support::redis().await;
    let harness = Harness::start(&server.url(), "UTC").await;
    let mut connection =
        redis::Client::open(server.operator_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let now = "2026-11-10T12:00:00Z".parse().unwrap();
    harness.set_time(&mut connection, now).await;
    let user = UserId::parse("bob").unwrap();
    let plain = Tokens::new(11).unwrap();
    let kinds = TokenKinds::new(7, 3, 4).unwrap();
    let (counted, estimated) = (Tokens::of_kinds(kinds), Tokens::of_kinds(kinds.estimated()));
    let hold = |hold: u8| Operation::Reserve {
        cost: Ap::new(3),
        ttl: Ttl::from_seconds(60).unwrap(),
        hold: Uuid::from_bytes([hold; 16]),
        idempotency: None,
    };
    harness.send(&user, Some(seed(&harness)), vec![consume(1, plain)]).await;
    harness.send(&user, None, vec![hold(4), consume(2, counted), consume(3, plain)]).await;
    let answers = harness.send(&user, None, vec![commit(4, 2, estimated, &harness, &user)]).await;
    assert_eq!(answers[0].status, ReplyStatus::Ok);
    harness.send(&user, None, vec![consume(5, plain)]).await;

    let model = [1, b'm'];
    let blocks = |flags| [1, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4, flags, 0];
    let with_blocks = [&model[..], &blocks(0)].concat();
    let entries: [(u8, u8, Vec<u8>); 4] = [
        (2, 1, event(1, (5, 0), 1, &model)),
        (3, 3, [event(129, (5, 0), 2, &with_blocks), event(1, (5, 0), 3, &model)].concat()),
        (3, 4, event(130, (2, 0), 4, &[&[0][..], &blocks(1)].concat())),
        (2, 5, event(1, (5, 0), 5, &model)),
    ];
    let expected: Vec<Vec<u8>> = entries
        .into_iter()
        .map(|(format, last, events)| {
            let ms = harness.clock.now().timestamp_millis().to_be_bytes();
            [&[format][..], &ms[2..], &[last; 16], &events].concat()
        })
        .collect();
    let stored: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg("qg:{00}:ev:1").arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let payloads: Vec<Vec<u8>> = stored.into_iter().skip(1).map(|(_, fields)| fields[1].clone()).collect();
    assert_eq!(payloads, expected);

    let read = harness.redis.read_stream(harness.partition(), 1, StreamId::GENESIS, 100).await.unwrap();
    let tokens: Vec<Tokens> =
        read.iter().flat_map(quota_gate::domain::journal::Entry::events).map(|event| event.tokens).collect();
    assert_eq!(tokens, [plain, counted, plain, estimated, plain]);
}
