//! The OpenAPI document.
//!
//! `openapi.json` has what is special to an operation: its summary, its request body and its successful responses. The
//! rest follows from the table of routes and is added here once: parameters, errors, and that no token is needed.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::api::access::Needed;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::routes::{ROUTES, Route};
use crate::api::state::Api;
use crate::packed::{packed, unpack};

/// The document as it is served.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| compose().to_string());

/// The errors that every operation can respond with: errors of the gate, of the access check, and of Redis.
const COMMON_ERRORS: [u16; 12] = [400, 403, 405, 408, 413, 417, 431, 500, 501, 502, 503, 505];

impl Api {
    pub(super) fn openapi(&self, _request: &Request) -> Result<Response, Response> {
        Ok(Response::document("application/json", &DOCUMENT))
    }
}

fn compose() -> Value {
    let mut document: Value = serde_json::from_str(&unpack(packed!("openapi.json"))).unwrap_or_default();
    for route in ROUTES {
        let path = &mut document["paths"][route.pattern];
        let in_path = parameter_names(route.pattern);
        if !in_path.is_empty() {
            path["parameters"] = in_path.iter().map(|name| reference("parameters", name)).collect();
        }
        let operation = &mut path[route.method.to_ascii_lowercase()];
        let mut parameters: Vec<Value> = operation["parameters"].as_array().cloned().unwrap_or_default();
        // An operation can describe a parameter itself, if it differs from that of other operations.
        let is_described = |name: &str| parameters.iter().any(|known| known["name"] == name);
        let shared = route.query.iter().filter(|name| !is_described(name));
        let shared: Vec<Value> = shared.map(|name| reference("parameters", name)).collect();
        parameters.extend(shared);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        match route.needed {
            Needed::ApiToken | Needed::WorkerToken => {}
            Needed::Nothing => operation["security"] = json!([{}]),
            Needed::AttemptToken => operation["security"] = json!([{}, {"token": []}]),
        }
        for status in errors(route) {
            operation["responses"][status.to_string()] = reference("responses", &format!("Error{status}"));
        }
    }
    document
}

/// The statuses of all errors that a route can respond with.
fn errors(route: &Route) -> Vec<u16> {
    let mut errors = [&COMMON_ERRORS[..], route.errors].concat();
    errors.extend(matches!(route.needed, Needed::ApiToken | Needed::WorkerToken).then_some(401));
    errors.extend((!parameter_names(route.pattern).is_empty()).then_some(404));
    errors.extend(matches!(route.method, "POST" | "PUT" | "PATCH").then_some(415));
    errors
}

/// The names in braces.
fn parameter_names(pattern: &str) -> Vec<&str> {
    pattern.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect()
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path of each operation of a document.
    fn operations(document: &Value) -> BTreeSet<String> {
        let methods = ["get", "post", "delete", "put", "patch"];
        let mut operations = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let known = item.as_object().unwrap().keys().filter(|key| methods.contains(&key.as_str()));
            operations.extend(known.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        operations
    }

    #[test]
    fn the_document_has_the_operations_of_the_route_table_and_no_others() {
        let template: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let served: BTreeSet<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.pattern)).collect();
        assert_eq!(operations(&template), served);
        assert_eq!(operations(&compose()), served);
    }

    #[test]
    fn every_reference_in_the_document_has_a_target() {
        let document = compose();
        let references: Vec<&str> = DOCUMENT.split("\"$ref\":\"#").skip(1).collect();
        assert!(references.len() > 100);
        for reference in references {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_component_is_referred_to() {
        for kind in ["parameters", "responses", "schemas"] {
            for name in compose()["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}\"");
                assert!(DOCUMENT.contains(&reference), "{reference}");
            }
        }
    }
}
