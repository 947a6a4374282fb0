//! Requests that wait, and how many may wait at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::api::answer::client_number;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::gate::{ParkedRequest, Permits};
use crate::queue::Queue;

/// Bounds the number of requests that wait, whatever they wait for.
pub struct Places {
    limit: usize,
    taken: AtomicUsize,
}

impl Places {
    pub fn new(limit: usize) -> Arc<Places> {
        Arc::new(Places { limit, taken: AtomicUsize::new(0) })
    }

    fn take(self: &Arc<Places>) -> Option<Place> {
        // The place comes first, so that it is given back if there are too many.
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        (before < self.limit).then_some(place)
    }
}

/// The place of one request. Dropping it frees the place.
struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits together with its connection. If it is dropped without a response, the gate responds with an error.
pub struct Parked {
    request: tiny_http::Request,
    api: Arc<Api>,
    /// The pattern of the request's path, for the metrics.
    pattern: &'static str,
    /// The permit of the request, which another request uses while this request waits.
    permit: ParkedRequest,
    _place: Place,
    _count: Counted,
}

/// Counts the request among those that wait, until it is dropped.
struct Counted(Arc<Api>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.wait_ends();
    }
}

impl Parked {
    /// Parks a request, or responds that too many requests wait.
    pub fn new(
        request: tiny_http::Request,
        api: &Arc<Api>,
        pattern: &'static str,
        places: &Arc<Places>,
        permits: &Arc<Permits>,
    ) -> Option<Parked> {
        let Some(place) = places.take() else {
            let response = Response::too_many_waiting();
            api.metrics.answered(request.method().as_str(), pattern, response.status);
            response.send(request);
            return None;
        };
        api.metrics.wait_begins();
        let permit = permits.park(client_number(&request));
        Some(Parked {
            request,
            api: api.clone(),
            pattern,
            permit,
            _place: place,
            _count: Counted(api.clone()),
        })
    }

    /// Whether the client has closed its connection or its sending half.
    pub fn client_has_hung_up(&self) -> bool {
        self.permit.client_has_hung_up()
    }

    /// The queue of the server.
    pub fn queue(&self) -> &Queue {
        &self.api.queue
    }

    /// Counts and sends the response.
    pub fn respond(self, response: Response) {
        let Parked { request, api, pattern, permit, .. } = self;
        api.metrics.answered(request.method().as_str(), pattern, response.status);
        drop(permit);
        response.send(request);
    }
}
