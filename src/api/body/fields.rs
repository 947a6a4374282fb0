//! JSON objects parsed strictly, field by field, so that an error names the field.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use crate::api::response::Response;
use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::rules::{self, TextRule};
use crate::job::time::parse_rfc3339;

/// Why a body is not valid, in a sentence.
#[derive(Debug)]
pub enum Invalid {
    /// The body is not JSON, or nested too deeply.
    Json(String),
    /// A field is unknown, missing or has a wrong value. The sentence names the field.
    Field(String),
}

impl Invalid {
    pub(super) fn field(sentence: impl Into<String>) -> Invalid {
        Invalid::Field(sentence.into())
    }
}

impl From<Invalid> for Response {
    fn from(invalid: Invalid) -> Response {
        match invalid {
            Invalid::Json(sentence) => Response::invalid_json(sentence),
            Invalid::Field(sentence) => Response::invalid_job(sentence),
        }
    }
}

/// An object's members in their order, including duplicates, with values as they were sent.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A whole number that is not negative. JSON has no integers: 5, 5.0 and 5e0 are the same number.
pub(super) struct Whole(pub u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                // Below 2^53 a float has all digits; no field allows more.
                match number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number) {
                    true => Ok(Whole(number as u64)),
                    false => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// A body that may be empty and may have one field, which is true or false. Without the field it is false.
pub fn flag(body: &[u8], name: &str) -> Result<bool, Invalid> {
    if body.is_empty() {
        return Ok(false);
    }
    let fields = Fields::of(json(body)?, String::new(), &[name])?;
    Ok(fields.get(name, "true or false", |_: &bool| true)?.unwrap_or(false))
}

/// The fields of one object.
pub(super) struct Fields<'a> {
    /// The path of the object in the body, as a prefix for the names of its fields in errors.
    pub place: String,
    pub members: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// The fields of `json`. Fails if a field is not in `allowed`, or is given twice.
    pub fn of(json: &'a RawValue, place: String, allowed: &[&str]) -> Result<Fields<'a>, Invalid> {
        let fields = Fields::any(json, place)?;
        let place = &fields.place;
        for (at, (name, _)) in fields.members.iter().enumerate() {
            let shown: String = name.chars().take(50).collect();
            if !allowed.contains(&name.as_str()) {
                let (name, allowed) = (format!("{place}{shown}"), allowed.join(", "));
                return Err(Invalid::Field(format!("unknown field {name:?}; allowed: {allowed}")));
            }
            // At most as many names as are allowed come before.
            if fields.members[..at].iter().any(|(other, _)| other == name) {
                return Err(Invalid::Field(format!("{place}{shown} is given twice")));
            }
        }
        Ok(fields)
    }

    /// The fields of `json`, whatever their names are.
    pub fn any(json: &'a RawValue, place: String) -> Result<Fields<'a>, Invalid> {
        if !json.get().starts_with('{') {
            return Err(match place.strip_suffix('.') {
                Some(place) => Invalid::Field(format!("{place} must be an object")),
                None => Invalid::field("the body must be an object"),
            });
        }
        let Members(members) =
            serde_json::from_str(json.get()).map_err(|error| Invalid::Json(error.to_string()))?;
        Ok(Fields { place, members })
    }

    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(given, _)| given == name).map(|(_, value)| *value)
    }

    /// Whether one of these fields is given.
    pub fn has_any(&self, names: &[&str]) -> bool {
        self.members.iter().any(|(given, _)| names.contains(&given.as_str()))
    }

    /// Fails if both fields are given.
    pub fn not_both(&self, one: &str, other: &str) -> Result<(), Invalid> {
        let place = &self.place;
        match self.raw(one).and(self.raw(other)) {
            Some(_) => {
                Err(Invalid::Field(format!("{place}{one} and {place}{other} must not be given together")))
            }
            None => Ok(()),
        }
    }

    /// A whole number in this range, or `None` if the field is absent.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Invalid> {
        let wanted = rules::whole_number_in(&range);
        let number = self.get(name, &wanted, |number: &Whole| range.contains(&number.0))?;
        Ok(number.map(|number| number.0))
    }

    /// A string that the rule accepts, or `None` if the field is absent.
    pub fn text(&self, name: &str, rule: &TextRule) -> Result<Option<String>, Invalid> {
        self.get(name, &format!("a string of {}", rule.allowed), |text: &String| rule.accepts(text))
    }

    /// A string that the rule accepts and that is not reserved for the server, or `None` if the field is absent.
    pub fn own_name(&self, name: &str, rule: &TextRule) -> Result<Option<String>, Invalid> {
        let text = self.text(name, rule)?;
        if text.as_deref().is_some_and(rules::is_reserved) {
            let (place, prefix) = (&self.place, rules::RESERVED_PREFIX);
            return Err(Invalid::Field(format!(
                "{place}{name} must not begin with {prefix:?}: the server keeps such names for itself"
            )));
        }
        Ok(text)
    }

    /// The value of a field that has to be one of these words; `None` if the field is absent.
    pub fn word(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Invalid> {
        let find = |text: &String| words.iter().find(|word| **word == text).copied();
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let text = self.get(name, &quoted.join(" or "), |text: &String| find(text).is_some())?;
        Ok(text.and_then(|text| find(&text)))
    }

    /// A time in milliseconds since 1970, or `None` if the field is absent.
    pub fn time(&self, name: &str) -> Result<Option<u64>, Invalid> {
        let is_time = |text: &String| parse_rfc3339(text).is_some();
        let text = self.get(name, "a time as in RFC 3339, like \"2026-11-24T08:00:00Z\"", is_time)?;
        Ok(text.and_then(|text| parse_rfc3339(&text)))
    }

    /// The value of a field, or `None` if the field is absent. Fails if `check` rejects the value; `wanted` says what is
    /// valid.
    pub fn get<T: DeserializeOwned>(
        &self,
        name: &str,
        wanted: &str,
        check: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Invalid> {
        self.get_checked(name, wanted, &check)
    }

    /// As [`Fields::get`]. The program has one copy for each type, and none for each check.
    fn get_checked<T: DeserializeOwned>(
        &self,
        name: &str,
        wanted: &str,
        check: &dyn Fn(&T) -> bool,
    ) -> Result<Option<T>, Invalid> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(value) if check(&value) => Ok(Some(value)),
            _ => Err(self.must_be(name, wanted)),
        }
    }

    // Not inlined: the generic function above is compiled for each kind of value.
    #[inline(never)]
    fn must_be(&self, name: &str, wanted: &str) -> Invalid {
        Invalid::Field(format!("{}{name} must be {wanted}", self.place))
    }
}

/// The body as JSON, nested at most [`MAX_DEPTH`] levels deep.
pub(super) fn json(body: &[u8]) -> Result<&RawValue, Invalid> {
    let invalid = |sentence: &str| Err(Invalid::Json(sentence.to_owned()));
    let Ok(text) = std::str::from_utf8(body) else { return invalid("the body is not valid UTF-8") };
    if text.trim_ascii().is_empty() {
        return invalid("the body is empty");
    }
    if depth_exceeds(text, MAX_DEPTH) {
        return invalid(&format!("the body is nested more than {MAX_DEPTH} levels deep"));
    }
    serde_json::from_str(text).map_err(|error| Invalid::Json(format!("the body is not valid JSON: {error}")))
}
