//! The uplink of sse and poll: a POST whose body is one packet (SPEC section 7.5).

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use throughline_protocol::Code;
use throughline_protocol::limits::MAX_UPLINK_PACKET;
use tokio::time::timeout;

use super::open::Rejection;

/// Reads the body, within its limit and before `deadline`: an upload that hangs would hold one of the few connections that a browser has.
pub(crate) async fn read_packet(body: Body, deadline: std::time::Duration) -> Result<Bytes, Rejection> {
    let limited = Limited::new(body, MAX_UPLINK_PACKET);
    match timeout(deadline, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let reason = format!("a packet of more than {MAX_UPLINK_PACKET} bytes: send it in several POSTs");
            Err(Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, Code::FrameTooLarge, reason))
        }
        Ok(Err(_)) => Err(Rejection::bad_request("the body ended too early")),
        Err(_) => Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, Code::BadRequest, "the body did not arrive in time")),
    }
}
