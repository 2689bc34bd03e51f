//! A request's body on its way in: it has to arrive in time, and what is read of it beyond a little
//! counts towards what all requests together may take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::auth::guard::{Denial, FREE_BYTES, Guard};
use crate::status;

/// The body of a request that is one message.
pub(crate) struct Arriving {
    inner: Body,
    guard: Arc<Guard>,
    /// Bytes that have come.
    read: usize,
    /// Bytes that have been taken of what there is for all.
    taken: usize,
    /// Set when it was first waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    /// `inner`, held to what `guard` allows.
    pub(crate) const fn new(inner: Body, guard: Arc<Guard>) -> Self {
        Self { inner, guard, read: 0, taken: 0, deadline: None }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        self.read += bytes;
        let more = self.read.saturating_sub(FREE_BYTES).saturating_sub(self.taken);
        if more > 0 {
            self.guard.take_room(more).map_err(|denial| status::of_denial(&denial))?;
            self.taken += more;
        }
        Ok(())
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let read =
                frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map(Bytes::len);
            if let Err(status) = self.count(read.unwrap_or(0)) {
                return Poll::Ready(Some(Err(status)));
            }
            return Poll::Ready(frame);
        }
        let timeout = self.guard.request_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(status::of_denial(&Denial::TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.guard.give_room(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearth_providers::env::SystemEnv;
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::config::Config;

    fn guard() -> Arc<Guard> {
        let mut settings = Config::default().grpc;
        settings.max_buffered_bytes = 100_000;
        Guard::new(Arc::new(SystemEnv), None, &Default::default(), &settings)
    }

    fn arriving(guard: &Arc<Guard>, bytes: usize) -> Arriving {
        let body = Full::new(Bytes::from(vec![0; bytes])).map_err(|never| match never {});
        Arriving::new(Body::new(body), Arc::clone(guard))
    }

    #[tokio::test]
    async fn what_is_read_takes_room_and_gives_it_back() {
        let guard = guard();
        let mut held = arriving(&guard, 60_000);
        held.frame().await.unwrap().unwrap();
        let refused = arriving(&guard, 80_000).frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert!(arriving(&guard, FREE_BYTES).frame().await.unwrap().is_ok(), "a small one");
        drop(held);
        assert!(arriving(&guard, 80_000).frame().await.unwrap().is_ok());
        assert!(guard.take_room(100_000).is_ok(), "all of it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_arrive_is_not_waited_for() {
        let guard = guard();
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, Status>,
        >());
        let begun = tokio::time::Instant::now();
        let mut arriving = Arriving::new(Body::new(never), Arc::clone(&guard));
        let refused = arriving.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
        let waited = begun.elapsed();
        assert!(waited >= guard.request_timeout);
        assert!(waited < guard.request_timeout + Duration::from_secs(1), "{waited:?}");
    }
}
