//! Which request goes where: a pure function of method and path.

use crate::job::JobId;
use crate::job::limits::QUEUE_NAME;

use super::ui::File;
use crate::api::response::Reply;

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    Jobs,
    Batch,
    Job(JobId),
    Cancel(JobId),
    Retry(JobId),
    DeadLetters,
    RetryDeadLetters,
    Queues,
    Pause(String),
    Resume(String),
    Stats,
    History,
    Workers,
    Metrics,
    Healthz,
    Readyz,
    OpenApi,
    /// A part of the dashboard.
    Ui(&'static File),
}

/// The shape of a path: its pattern as the documentation has it, and the methods it knows. HEAD goes with GET.
pub struct Shape {
    pub pattern: &'static str,
    pub methods: &'static [&'static str],
}

/// All shapes. A segment in braces stands for any.
const SHAPES: [Shape; 21] = [
    Shape { pattern: "/jobs", methods: &["GET", "POST"] },
    Shape { pattern: "/jobs/batch", methods: &["POST"] },
    Shape { pattern: "/jobs/{id}", methods: &["GET", "DELETE"] },
    Shape { pattern: "/jobs/{id}/cancel", methods: &["POST"] },
    Shape { pattern: "/jobs/{id}/retry", methods: &["POST"] },
    Shape { pattern: "/dlq", methods: &["GET", "DELETE"] },
    Shape { pattern: "/dlq/retry", methods: &["POST"] },
    Shape { pattern: "/queues", methods: &["GET"] },
    Shape { pattern: "/queues/{name}/pause", methods: &["POST"] },
    Shape { pattern: "/queues/{name}/resume", methods: &["POST"] },
    Shape { pattern: "/stats", methods: &["GET"] },
    Shape { pattern: "/stats/history", methods: &["GET"] },
    Shape { pattern: "/stats/workers", methods: &["GET"] },
    Shape { pattern: "/metrics", methods: &["GET"] },
    Shape { pattern: "/healthz", methods: &["GET"] },
    Shape { pattern: "/readyz", methods: &["GET"] },
    Shape { pattern: "/openapi.json", methods: &["GET"] },
    Shape { pattern: "/", methods: &["GET"] },
    Shape { pattern: "/ui/app.js", methods: &["GET"] },
    Shape { pattern: "/ui/style.css", methods: &["GET"] },
    Shape { pattern: "/ui/icon.svg", methods: &["GET"] },
];

impl Shape {
    /// The shape of a path, without its query, and what stands in place of the braces.
    pub fn of(path: &str) -> Option<(&'static Shape, &str)> {
        SHAPES.iter().find_map(|shape| shape.matches(path).map(|parameter| (shape, parameter)))
    }

    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (mut wanted, mut given) = (self.pattern.split('/'), path.split('/'));
        let mut parameter = "";
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(parameter),
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {
                    parameter = given
                }
                _ => return None,
            }
        }
    }

    /// The methods that it answers.
    pub fn allowed(&self) -> Vec<&'static str> {
        let with_head = |method: &&'static str| match *method {
            "GET" => vec!["GET", "HEAD"],
            method => vec![method],
        };
        self.methods.iter().flat_map(with_head).collect()
    }

    /// Whether it needs no token: probes, which have none, and the dashboard, where a person is asked for it.
    pub fn is_open(&self) -> bool {
        matches!(self.pattern, "/healthz" | "/readyz") || File::at(self.pattern).is_some()
    }

    /// The route of this shape, with its parameter checked.
    pub fn route(&self, parameter: &str) -> Result<Route, Reply> {
        let id = || {
            parameter
                .parse()
                .map_err(|error: crate::job::InvalidId| Reply::error(400, "invalid_id", error.to_string()))
        };
        let queue = || {
            let sentence = || format!("a queue's name must be {}", QUEUE_NAME.allowed);
            QUEUE_NAME
                .accepts(parameter)
                .then(|| parameter.to_owned())
                .ok_or_else(|| Reply::error(400, "invalid_queue", sentence()))
        };
        Ok(match self.pattern {
            "/jobs" => Route::Jobs,
            "/jobs/batch" => Route::Batch,
            "/jobs/{id}" => Route::Job(id()?),
            "/jobs/{id}/cancel" => Route::Cancel(id()?),
            "/jobs/{id}/retry" => Route::Retry(id()?),
            "/dlq" => Route::DeadLetters,
            "/dlq/retry" => Route::RetryDeadLetters,
            "/queues" => Route::Queues,
            "/queues/{name}/pause" => Route::Pause(queue()?),
            "/queues/{name}/resume" => Route::Resume(queue()?),
            "/stats" => Route::Stats,
            "/stats/history" => Route::History,
            "/stats/workers" => Route::Workers,
            "/metrics" => Route::Metrics,
            "/healthz" => Route::Healthz,
            "/openapi.json" => Route::OpenApi,
            pattern => File::at(pattern).map_or(Route::Readyz, Route::Ui),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::OPENAPI;

    fn pattern(path: &str) -> Option<&'static str> {
        Shape::of(path).map(|(shape, _)| shape.pattern)
    }

    #[test]
    fn the_document_has_these_routes_and_no_others() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let methods = ["get", "post", "delete", "put", "patch"];
        let mut told = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let known = item.as_object().unwrap().keys().filter(|key| methods.contains(&key.as_str()));
            told.extend(known.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        let served: BTreeSet<String> = SHAPES
            .iter()
            .flat_map(|shape| shape.methods.iter().map(move |method| format!("{method} {}", shape.pattern)))
            .collect();
        assert_eq!(told, served);
    }

    #[test]
    fn the_document_refers_to_nothing_that_it_lacks() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let references: Vec<&str> = OPENAPI.split("\"$ref\": \"#").skip(1).collect();
        assert!(references.len() > 100);
        for reference in references {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn a_path_is_known_by_its_segments() {
        assert_eq!(pattern("/jobs"), Some("/jobs"));
        assert_eq!(pattern("/jobs/batch"), Some("/jobs/batch"));
        assert_eq!(pattern("/jobs/12"), Some("/jobs/{id}"));
        assert_eq!(pattern("/jobs/12/cancel"), Some("/jobs/{id}/cancel"));
        for unknown in
            ["", "/jobs/", "//jobs", "/jobs/12/", "/jobs//cancel", "/JOBS", "/jobs/12/x", "/queues/a"]
        {
            assert_eq!(pattern(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_shape_has_a_route() {
        for shape in &SHAPES {
            let route = shape.route("7").unwrap();
            assert_eq!(route == Route::Readyz, shape.pattern == "/readyz", "{}", shape.pattern);
        }
    }

    #[test]
    fn head_is_allowed_wherever_get_is() {
        let allowed = |path: &str| Shape::of(path).map(|(shape, _)| shape.allowed());
        assert_eq!(allowed("/jobs"), Some(vec!["GET", "HEAD", "POST"]));
        assert_eq!(allowed("/jobs/batch"), Some(vec!["POST"]));
    }

    #[test]
    fn only_probes_and_the_dashboard_need_no_token() {
        let open: Vec<&str> =
            SHAPES.iter().filter(|shape| shape.is_open()).map(|shape| shape.pattern).collect();
        assert_eq!(open, ["/healthz", "/readyz", "/", "/ui/app.js", "/ui/style.css", "/ui/icon.svg"]);
    }

    #[test]
    fn parameters_are_checked() {
        for (path, ok) in
            [("/jobs/12", true), ("/jobs/012", false), ("/jobs/x", false), ("/jobs/9007199254740992", false)]
        {
            let (shape, parameter) = Shape::of(path).unwrap();
            assert_eq!(shape.route(parameter).is_ok(), ok, "{path}");
        }
        let (shape, parameter) = Shape::of("/queues/a%20b/pause").unwrap();
        assert!(shape.route(parameter).is_err());
    }
}
