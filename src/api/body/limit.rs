//! The body of PUT /limits/NAME.

use super::fields::{Fields, Invalid, json};
use crate::job::limit::{CONCURRENCY, LimitNumbers, RATE_ALLOWED, Rate, STARTS};

/// The numbers of a limit.
pub fn limit(body: &[u8]) -> Result<LimitNumbers, Invalid> {
    let fields = Fields::of(json(body)?, String::new(), &["concurrency", "rate", "burst"])?;
    let (least, most) = CONCURRENCY.into_inner();
    let concurrency = fields.number("concurrency", least.into()..=most.into())?;
    let wanted = format!("a string {RATE_ALLOWED}");
    let rate = fields.get("rate", &wanted, |text: &String| Rate::parse(text).is_some())?;
    let rate = rate.and_then(|text| Rate::parse(&text));
    let (least, most) = STARTS.into_inner();
    let burst = fields.number("burst", least.into()..=most.into())?;
    match (concurrency, rate, burst) {
        (None, None, _) => Err(Invalid::field("concurrency or rate must be given")),
        (_, None, Some(_)) => Err(Invalid::field("burst must not be given without rate")),
        _ => Ok(LimitNumbers {
            concurrency: concurrency.map(|jobs| jobs as u32),
            rate,
            burst: burst.map_or(1, |starts| starts as u32),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_concurrency_a_rate_or_both() {
        let all = limit(br#"{"concurrency": 2, "rate": "100/m", "burst": 20}"#).unwrap();
        assert_eq!((all.concurrency, all.rate, all.burst), (Some(2), Rate::parse("100/m"), 20));
        let rate = limit(br#"{"rate": "5/30s"}"#).unwrap();
        assert_eq!((rate.concurrency, rate.rate, rate.burst), (None, Rate::parse("5/30s"), 1));
        for (body, expected) in [
            ("{}", "concurrency or rate must be given"),
            (r#"{"burst": 2}"#, "concurrency or rate must be given"),
            (r#"{"concurrency": 2, "burst": 2}"#, "burst must not be given without rate"),
            (r#"{"concurrency": 0}"#, "concurrency must be a whole number from 1 to 100000"),
            (r#"{"concurrency": null}"#, "concurrency must be a whole number from 1 to 100000"),
            (r#"{"rate": "1/31d"}"#, "rate must be a string N/PERIOD such as 10/s, "),
            (r#"{"rate": 5}"#, "rate must be a string N/PERIOD such as 10/s, "),
            (r#"{"rate": "1/s", "burst": 1000001}"#, "burst must be a whole number from 1 to 1000000"),
            (r#"{"rate": "1/s", "rates": 1}"#, r#"unknown field "rates"; allowed: concurrency, rate, burst"#),
            (r#"{"rate": "1/s", "rate": "2/s"}"#, "rate is given twice"),
            ("[]", "the body must be an object"),
        ] {
            let Err(Invalid::Field(sentence)) = limit(body.as_bytes()) else { panic!("{body}") };
            assert!(sentence.starts_with(expected), "{body}: {sentence}");
        }
    }
}
