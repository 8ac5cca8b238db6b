//! A line of an import: its members, and the errors that name them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};

use quota_gate::{
    domain::{
        InvalidInput,
        ap::Ap,
        author::Author,
        calendar::AnchorDay,
        clock::instant,
        grant::GRANTS_PER_USER_MAX,
        level::{Level, LevelName, Levels},
        meter::MeterCode,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        user_id::UserId,
        window::{WindowKey, WindowState, WindowUnit},
    },
    store::postgres::{ForeignUser, ImportRow, ImportedGrant},
};

/// Author of the grants.
const IMPORT: &str = "import";

/// A line of CSV or NDJSON, or a row of a query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    user: String,
    level: String,
    #[serde(default)]
    used: i64,
    /// Day of the month on which the user's periods begin.
    #[serde(default)]
    anchor: Option<i64>,
    #[serde(default)]
    windows: Option<Vec<WindowMembers>>,
    #[serde(default)]
    grants: Option<Vec<GrantMembers>>,
}

/// A window of the user that is running.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WindowMembers {
    every: String,
    unit: UnitWord,
    used: i64,
    started_at: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnitWord {
    Ap,
    Requests,
}

/// A grant of the user, as `POST /api/chat/quota/grants` takes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrantMembers {
    ap: i64,
    expires_at: Option<String>,
    priority: Option<i64>,
    source: String,
    external_id: String,
    reason: Option<String>,
}

impl Line {
    /// Reads a line of NDJSON.
    pub(super) fn from_json(line: &[u8]) -> Result<Self, String> {
        from_json("", line)
    }

    /// Takes a row of a query.
    pub(super) fn from_row(row: ForeignUser) -> Result<Self, String> {
        let (Some(user), Some(level)) = (row.user, row.level) else {
            return Err("the query must return the columns user and level, and neither may be null".to_owned());
        };
        let windows = row.windows.map(|windows| from_json("windows", windows.as_bytes())).transpose()?;
        let grants = row.grants.map(|grants| from_json("grants", grants.as_bytes())).transpose()?;
        Ok(Self { user, level, used: row.used, anchor: row.anchor, windows, grants })
    }

    /// Checks the members. An error names the member and the rule.
    pub(super) fn check(self, levels: &Levels, now: DateTime<Utc>) -> Result<ImportRow, String> {
        let name = LevelName::parse(&self.level).map_err(|error| error.to_string())?;
        let level = levels.offered(name.as_str()).ok_or_else(|| {
            let known: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
            format!("level {name} is not one of {}", known.join(", "))
        })?;
        let id = UserId::parse(&self.user).map_err(|error| error.to_string())?;
        let used = Ap::new(amount("used", self.used)?);
        let anchor_day = self.anchor.map(|day| AnchorDay::new(u8::try_from(day).unwrap_or(0))).transpose();
        let anchor_day = anchor_day.map_err(|_| "anchor must be a day of the month from 1 to 31".to_owned())?;
        let windows = windows(self.windows.unwrap_or_default(), level, now)?;
        let grants = grants(self.grants.unwrap_or_default(), &id, now)?;
        Ok(ImportRow { user: id, level: name, used, anchor_day, windows, grants })
    }
}

fn windows(given: Vec<WindowMembers>, level: &Level, now: DateTime<Utc>) -> Result<Vec<WindowState>, String> {
    let mut keys = HashSet::new();
    let mut windows = Vec::with_capacity(given.len());
    for (place, window) in given.into_iter().enumerate() {
        let at = |member: &str| format!("windows[{place}].{member}");
        let unit = match window.unit {
            UnitWord::Ap => WindowUnit::Ap,
            UnitWord::Requests => WindowUnit::Requests,
        };
        let key = WindowKey::parse(&window.every, unit).map_err(|error| format!("{}: {}", at("every"), error.rule))?;
        if !level.limits.windows().iter().any(|limit| limit.key == key) {
            let all = match level.limits.windows_text() {
                none if none.is_empty() => "no windows".to_owned(),
                text => text,
            };
            return Err(format!("{}: level {} has {all}", at("every"), level.name));
        }
        if !keys.insert(key) {
            return Err(format!("{}: the window is listed twice", at("every")));
        }
        let start = DateTime::parse_from_rfc3339(&window.started_at).ok().map(|start| start.timestamp_millis());
        let start = start.filter(|ms| (1..=now.timestamp_millis()).contains(ms)).ok_or_else(|| {
            format!("{}: must be a time such as 2027-01-31T09:30:00Z, and not in the future", at("startedAt"))
        })?;
        windows.push(WindowState { key, start: instant(start), used: amount(&at("used"), window.used)? });
    }
    Ok(windows)
}

fn grants(given: Vec<GrantMembers>, user: &UserId, now: DateTime<Utc>) -> Result<Vec<ImportedGrant>, String> {
    let mut grants = Vec::with_capacity(given.len());
    let mut external_ids = HashSet::new();
    for (place, members) in given.into_iter().enumerate() {
        if !external_ids.insert(members.external_id.clone()) {
            return Err(format!("grants[{place}].externalId: is listed twice"));
        }
        let grant = members.grant(user).map_err(|error| format!("grants[{place}].{error}"))?;
        grants.push(grant);
    }
    let live = grants.iter().filter(|imported| !imported.grant.is_expired(now)).count();
    if live > GRANTS_PER_USER_MAX {
        return Err(too_many_grants());
    }
    Ok(grants)
}

/// The error of a user who would have more live grants than possible.
pub(super) fn too_many_grants() -> String {
    format!("grants: a user has at most {GRANTS_PER_USER_MAX} live grants; join some of them")
}

impl GrantMembers {
    fn grant(self, user: &UserId) -> Result<ImportedGrant, InvalidInput> {
        let grant = NewGrant {
            meter: MeterCode::CHAT,
            user: user.clone(),
            ap: NewGrant::ap(self.ap)?,
            expires_at: self.expires_at.as_deref().map(NewGrant::expiry).transpose()?,
            priority: self.priority.map_or(Ok(Priority::DEFAULT), Priority::new)?,
            source: GrantSource::parse(&self.source)?,
            external_id: ExternalId::parse(&self.external_id)?,
        };
        let reason = Author::program(IMPORT, self.reason.as_deref())?.reason;
        Ok(ImportedGrant { grant, reason })
    }
}

/// Parses JSON. An error names the member, below `root`.
fn from_json<T: DeserializeOwned>(root: &str, text: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let member = if path == "." { root.to_owned() } else { format!("{root}{path}") };
        // The input is one line.
        let problem = error.inner().to_string().replace(" at line 1 column ", " at column ");
        if member.is_empty() { problem } else { format!("{member}: {problem}") }
    })?;
    json.end().map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))?;
    Ok(value)
}

/// A number of AP or requests that fits a row.
fn amount(member: &str, number: i64) -> Result<u32, String> {
    let amount = i32::try_from(number).ok().and_then(|amount| u32::try_from(amount).ok());
    amount.ok_or_else(|| format!("{member} must be a whole number from 0 to {}, not {number}", i32::MAX))
}

#[cfg(test)]
mod tests {
    use quota_gate::domain::{level::LevelCode, window::LevelLimits};

    use super::*;

    fn levels() -> Levels {
        let level = |code, name, windows| Level {
            code: LevelCode::new(code).unwrap(),
            name: LevelName::parse(name).unwrap(),
            quota: Ap::new(u32::from(code) * 100),
            limits: LevelLimits::parse(windows, None).unwrap(),
            retired: false,
        };
        Levels::new(1, vec![level(1, "free", ""), level(2, "plus", "5h ap 80, 1m requests 20")]).unwrap()
    }

    fn checked(members: &str) -> Result<ImportRow, String> {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        Line::from_json(members.as_bytes()).and_then(|line| line.check(&levels(), now))
    }

    #[test]
    fn a_line_has_windows_and_grants() {
        let row = checked(
            r#"{"user": "ann", "level": "plus", "used": 7, "anchor": 31,
                "windows": [{"every": "300m", "unit": "ap", "used": 6, "startedAt": "2026-11-27T10:30:00+01:00"}],
                "grants": [{"ap": 500, "expiresAt": "2027-01-31T00:00:00Z", "priority": 5, "source": "pack", "externalId": "o-1"},
                           {"ap": 1, "expiresAt": null, "source": "gift", "externalId": "o-2", "reason": "sorry"}]}"#,
        )
        .unwrap();
        let [window] = row.windows[..] else { panic!("{row:?}") };
        assert_eq!((window.key.every(), window.used), ("5h".to_owned(), 6));
        assert_eq!(window.start, "2026-11-27T09:30:00Z".parse::<DateTime<Utc>>().unwrap());
        let [pack, gift] = &row.grants[..] else { panic!("{row:?}") };
        assert_eq!((pack.grant.ap.get(), pack.grant.priority.get(), pack.reason.as_str()), (500, 5, ""));
        assert_eq!(
            (gift.grant.priority, gift.grant.expires_at, gift.reason.as_str()),
            (Priority::DEFAULT, None, "sorry")
        );
        let plain =
            checked(r#"{"user": "ann", "level": "free", "anchor": null, "windows": null, "grants": []}"#).unwrap();
        assert_eq!((plain.used, plain.windows.len(), plain.grants.len()), (Ap::ZERO, 0, 0));
    }

    #[test]
    fn an_error_names_the_member_and_what_it_must_be() {
        let window = |text: &str| format!(r#""level": "plus", "windows": [{text}]"#);
        let grant = |text: &str| format!(r#""level": "plus", "grants": [{text}]"#);
        let valid = r#"{"every": "5h", "unit": "ap", "used": 1, "startedAt": "2026-11-27T11:00:00Z"}"#;
        let many: Vec<String> =
            (0..33).map(|n| format!(r#"{{"ap": 1, "source": "s", "externalId": "o-{n}"}}"#)).collect();
        for (members, expected) in [
            (r#""level": "plus", "used": "7""#.to_owned(), "used: invalid type"),
            (r#""level": "plus", "used": 7000000000"#.to_owned(), "used must be"),
            (r#""level": "plus", "anchor": 32"#.to_owned(), "anchor must be"),
            (window(&valid.replace("\"used\": 1", "\"used\": -1")), "windows[0].used must be"),
            (window(&valid.replace("\"ap\"", "\"tokens\"")), "windows[0].unit: unknown variant `tokens`"),
            (window(&valid.replace("5h", "5x")), "windows[0].every: must be a length"),
            (window(&valid.replace("5h", "7d")), "windows[0].every: level plus has 1m requests 20, 5h ap 80"),
            (window(valid).replace("plus", "free"), "windows[0].every: level free has no windows"),
            (window(&format!("{valid}, {valid}")), "windows[1].every: the window is listed twice"),
            (window(&valid.replace("T11", "T13")), "windows[0].startedAt: must be a time"),
            (window(&valid.replace("T11", " at 11")), "windows[0].startedAt: must be a time"),
            (grant(r#"{"ap": 0, "source": "pack", "externalId": "o"}"#), "grants[0].ap: must be"),
            (grant(r#"{"ap": 1, "source": "Pack", "externalId": "o"}"#), "grants[0].source: must be"),
            (
                grant(r#"{"ap": 1, "source": "pack", "externalId": "o", "priority": 300}"#),
                "grants[0].priority: must be",
            ),
            (
                grant(r#"{"ap": 1, "source": "pack", "externalId": "o", "expiresAt": "soon"}"#),
                "grants[0].expiresAt: must be",
            ),
            (
                grant(r#"{"ap": 1, "source": "pack", "externalId": "o", "expires": 1}"#),
                "grants[0].expires: unknown field",
            ),
            (grant(r#"{"ap": 1, "source": "pack"}"#), "grants[0]: missing field `externalId`"),
            (
                grant(r#"{"ap": 1, "source": "s", "externalId": "o"}, {"ap": 1, "source": "s", "externalId": "o"}"#),
                "grants[1].externalId",
            ),
            (grant(&many.join(", ")), "grants: a user has at most 32 live grants"),
        ] {
            let error = checked(&format!(r#"{{"user": "ann", {members}}}"#)).unwrap_err();
            assert!(error.starts_with(expected), "{members}: {error}");
        }
        assert!(checked(r#"{"user": "ann", "level": "free"} x"#).unwrap_err().contains("column"));
    }
}
