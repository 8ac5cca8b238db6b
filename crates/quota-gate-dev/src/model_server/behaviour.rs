//! The behaviour that a model's name requests: `local`, then `:` and options separated by `,`.

use std::time::Duration;

/// How the model server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// `words=N`: length of the answer.
    pub(super) words: usize,
    /// `pace-ms=N`: pause before each word of a stream.
    pub(super) pace: Duration,
    /// `head-ms=N`: pause before the head.
    pub(super) head_delay: Duration,
    /// `status=N`: an error instead of an answer.
    pub(super) status: Option<u16>,
    /// `cut=N`: the connection breaks after N words.
    pub(super) cut: Option<usize>,
    /// `stall=N`: nothing is sent after N words.
    pub(super) stall: Option<usize>,
    /// `error=N`: an error event after N words, then the end.
    pub(super) error: Option<usize>,
    /// `garbage`: neither JSON nor events, with status 200.
    pub(super) garbage: bool,
    /// How tokens are reported.
    pub(super) usage: Usage,
    /// `cached=N`: input tokens that are reported as cached.
    pub(super) cached: usize,
    /// `no-done`: a stream without its final `[DONE]`.
    pub(super) no_done: bool,
}

/// How an answer reports its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Plain,
    /// `odd-usage`: under the names of both APIs, one of them with an invalid number.
    Odd,
    /// `no-usage`: not at all, even if requested.
    Missing,
}

impl Behaviour {
    /// Parses a model's name. The error is a message for the client.
    pub(super) fn of(model: &str) -> Result<Self, String> {
        let mut behaviour = Self {
            words: 24,
            pace: Duration::from_millis(20),
            head_delay: Duration::ZERO,
            status: None,
            cut: None,
            stall: None,
            error: None,
            garbage: false,
            usage: Usage::Plain,
            cached: 0,
            no_done: false,
        };
        let Some((_, options)) = model.split_once(':') else { return Ok(behaviour) };
        for option in options.split(',') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || value.parse::<u32>().map_err(|_| format!("{name} needs a number, as in {name}=3"));
            let words = || number().map(|number| number as usize);
            let ms = || number().map(|number| Duration::from_millis(number.into()));
            match name {
                "words" => behaviour.words = words()?,
                "pace-ms" => behaviour.pace = ms()?,
                "head-ms" => behaviour.head_delay = ms()?,
                "status" => {
                    let status = number()?.try_into().ok().filter(|status| (400..600).contains(status));
                    behaviour.status = Some(status.ok_or("status must be 400 to 599")?);
                }
                "cut" => behaviour.cut = Some(words()?),
                "stall" => behaviour.stall = Some(words()?),
                "error" => behaviour.error = Some(words()?),
                "garbage" => behaviour.garbage = true,
                "no-usage" => behaviour.usage = Usage::Missing,
                "odd-usage" => behaviour.usage = Usage::Odd,
                "cached" => behaviour.cached = words()?,
                "no-done" => behaviour.no_done = true,
                other => return Err(format!("the local model has no option {other:?}")),
            }
        }
        Ok(behaviour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_name() {
        let plain = Behaviour::of("gpt-4o").unwrap();
        assert_eq!(plain, Behaviour::of("local").unwrap());
        let asked = Behaviour::of("local:words=3,pace-ms=0,cut=2,no-usage").unwrap();
        let expected = Behaviour { words: 3, pace: Duration::ZERO, cut: Some(2), usage: Usage::Missing, ..plain };
        assert_eq!(asked, expected);
        for wrong in ["local:", "local:words", "local:status=200", "local:cut=-1", "local:dance"] {
            assert!(Behaviour::of(wrong).is_err(), "{wrong}");
        }
    }
}
