//! A text that must not appear in logs, errors or `{:?}`.

use std::fmt;

/// A password, a token, or a URL that may contain one. `{}` and `{:?}` print `***`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, to send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A URL for logs: its password, and each query parameter that may hold one, are `***`.
    ///
    /// A text that is not a URL is `***` as a whole.
    pub fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return "***".to_owned() };
        // The last @ ends user and password, even if the password has an unescaped / or ?.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (place, parameters) = rest.split_once('?').map_or((rest, ""), |(place, more)| (place, more));
        format!("{scheme}://{}{place}{}", redacted_login(login), redacted_parameters(parameters))
    }
}

/// `user:***@`. A login without a colon is hidden as a whole: it may be a password.
fn redacted_login(login: Option<&str>) -> String {
    match login.map(|login| login.split_once(':')) {
        None => String::new(),
        Some(None) => "***@".to_owned(),
        Some(Some((user, _))) => format!("{user}:***@"),
    }
}

/// Shows only parameters that never hold a secret.
fn redacted_parameters(parameters: &str) -> String {
    let mut text = String::new();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(if matches!(name, "db" | "user" | "protocol") { parameter } else { "***" });
    }
    text
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_secret_shows_nothing_of_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_redacted_url_keeps_all_but_the_password() {
        let cases = [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://:hunter2@db:6379", "redis://:***@db:6379"),
            (
                "redis://ann:hunter2@[::1]:6379/1?protocol=resp3",
                "redis://ann:***@[::1]:6379/1?protocol=resp3",
            ),
            ("redis://hunter2@db", "redis://***@db"),
            ("redis://ann:hun@ter2@db", "redis://ann:***@db"),
            ("redis://ann:hunt/er2?x@db/0", "redis://ann:***@db/0"),
            ("redis+sentinel://ann:hun@ter2@h1,h2:1/m/1", "redis+sentinel://ann:***@h1,h2:1/m/1"),
            ("redis+cluster://:hunter2@h1,[::1]:7", "redis+cluster://:***@h1,[::1]:7"),
            (
                "redis+sentinel://h1,h2/m?sentinel_username=ann&sentinel_password=hunter2",
                "redis+sentinel://h1,h2/m?***&***",
            ),
            ("unix:///run/redis.sock?db=1&pass=hunter2&user=ann", "unix:///run/redis.sock?db=1&***&user=ann"),
            ("redis+unix:///run/redis.sock?p%61ss=hunter2", "redis+unix:///run/redis.sock?***"),
            ("hunter2", "***"),
        ];
        for (url, redacted) in cases {
            assert_eq!(Secret::new(url).redacted(), redacted);
        }
    }
}
