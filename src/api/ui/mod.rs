//! The files of the dashboard, which are part of the program: a page, its script in modules, a style sheet and an
//! icon.
//!
//! They contain no data: the script requests it from the API as any client does, with the token if one is set. So the
//! files are served without a token. Their Content-Security-Policy lets the browser load and run nothing but these files,
//! so that text in a payload is shown and never run.

use crate::api::response::Response;

/// No inline code, nothing from other sites, no frames, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// One of the files.
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const PAGE: File =
    File { name: "index.html", content_type: "text/html; charset=utf-8", text: include_str!("index.html") };

/// The files below `/ui/`. The page names `app.js`, which imports the other modules.
static FILES: &[File] = &[
    script("app.js", include_str!("app.js")),
    script("api.js", include_str!("api.js")),
    script("bulk.js", include_str!("bulk.js")),
    script("charts.js", include_str!("charts.js")),
    script("elements.js", include_str!("elements.js")),
    script("forms.js", include_str!("forms.js")),
    script("job.js", include_str!("job.js")),
    script("jobs.js", include_str!("jobs.js")),
    script("overview.js", include_str!("overview.js")),
    script("parts.js", include_str!("parts.js")),
    script("queues.js", include_str!("queues.js")),
    script("schedules.js", include_str!("schedules.js")),
    script("submit.js", include_str!("submit.js")),
    script("text.js", include_str!("text.js")),
    File { name: "style.css", content_type: "text/css; charset=utf-8", text: include_str!("style.css") },
    File { name: "icon.svg", content_type: "image/svg+xml", text: include_str!("icon.svg") },
];

const fn script(name: &'static str, text: &'static str) -> File {
    File { name, content_type: "text/javascript; charset=utf-8", text }
}

/// The page itself.
pub fn page() -> Response {
    PAGE.response()
}

/// The file of this name.
pub fn file(name: &str) -> Result<Response, Response> {
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Response::error(404, "not_found", "the dashboard has no such file"))?;
    Ok(file.response())
}

impl File {
    fn response(&self) -> Response {
        Response::document(self.content_type, self.text)
            .with("Content-Security-Policy", POLICY)
            .with("Referrer-Policy", "no-referrer")
            .with("X-Frame-Options", "DENY")
    }
}
