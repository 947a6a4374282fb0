//! The limits of a server: those of its configuration and of its program.

use crate::api;
use crate::client::limits::Limit;
use crate::config::Config;
use crate::server::error::StartError;

/// Adds the limits of the program to those of the configuration.
///
/// # Errors
/// The first limit that is not valid, with its field.
pub(super) fn add_limits(config: &mut Config, limits: &[Limit]) -> Result<(), StartError> {
    for limit in limits {
        let invalid =
            |problem: &str| StartError::Configuration(format!("limits.{:?}: {problem}", limit.name));
        // The numbers always have a JSON form.
        let body = serde_json::to_vec(limit).unwrap_or_default();
        let (name, numbers) = api::checked_limit(&limit.name, &body).map_err(|problem| invalid(&problem))?;
        if config.limits.iter().any(|(other, _)| *other == name) {
            return Err(invalid("the name is given twice"));
        }
        config.limits.push((name, numbers));
    }
    Ok(())
}

/// A warning for each limit of a job type that this configuration does not define. The API may have defined the limit.
pub(super) fn undefined_limits(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for handler in &config.handlers {
        for limit in &handler.limited_by {
            let is_same = |name: &str| name == limit.as_str() || name == limit.name();
            if !config.limits.iter().any(|(name, _)| is_same(name.as_str())) {
                warnings.push(format!(
                    "handlers.{:?}.limited_by names the limit {limit}, which this configuration does not define: unless \
                     it is defined by PUT /limits, jobs of this type are refused",
                    handler.job_type
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::limits::SECOND;
    use crate::config::HandlerEntry;
    use crate::job::limit::LimitName;

    #[test]
    fn limits_of_the_program_are_checked_and_added_once() {
        let mut config = Config::default();
        add_limits(&mut config, &[Limit::named("smtp").rate(10, SECOND), Limit::named("a:b").concurrency(1)])
            .unwrap();
        assert_eq!(config.limits[0].1.rate.unwrap().to_string(), "10/s");
        for (limit, part) in [
            (Limit::named("smtp").concurrency(1), r#"limits."smtp": the name is given twice"#),
            (
                Limit::named("a b").concurrency(1),
                r#"limits."a b": the name is not allowed; allowed: NAME or "#,
            ),
            (Limit::named("threadq.x").concurrency(1), r#"limits."threadq.x": the name is not allowed"#),
            (Limit::named("x"), r#"limits."x": concurrency or rate must be given"#),
            (Limit::named("x").rate(0, SECOND), r#"limits."x": rate must be a string N/PERIOD"#),
        ] {
            let error = add_limits(&mut config, &[limit]).unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn a_limit_that_only_a_handler_names_is_told() {
        let limit = |name| LimitName::parse(name).unwrap();
        let limited_by = vec![limit("smtp"), limit("tenant:42"), limit("other:1")];
        let handler = HandlerEntry { job_type: "mail".to_owned(), limited_by, ..HandlerEntry::default() };
        let mut config = Config { handlers: vec![handler], ..Config::default() };
        add_limits(
            &mut config,
            &[Limit::named("tenant").concurrency(1), Limit::named("other:2").concurrency(1)],
        )
        .unwrap();
        let warnings = undefined_limits(&config);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with(r#"handlers."mail".limited_by names the limit smtp, which"#),
            "{warnings:?}"
        );
        assert!(warnings[1].contains(" other:1, "), "{warnings:?}");
    }
}
