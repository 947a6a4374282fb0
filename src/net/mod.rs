//! What all outgoing connections share: URLs, trusted certificate authorities, client certificates, and responses that a
//! server sends before it has read the whole request.

pub(crate) mod authorities;
pub(crate) mod certificates;
pub(crate) mod early_response;
pub(crate) mod http_url;
pub(crate) mod pem;
pub(crate) mod percent;
pub(crate) mod redis_url;
