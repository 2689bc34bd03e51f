//! Watches that the server tells of.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _, unfold};
use hearth_proto::{HearthClient, StatusDetails, v1};
use tonic::{Status, Streaming};

use super::board::Board;
use super::{PAUSE, Step, away, is_board, print_step};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::output::Show;
use crate::cli::view::{Pool, Vm, value_name};

/// How often a table is shown anew while nothing happens: its ages go on, and its terminal may have another
/// size.
const PERIOD: Duration = Duration::from_secs(1);
/// The shortest time between two that are shown while much happens.
const PACE: Duration = Duration::from_millis(100);

/// A resource that the server tells of.
pub(crate) trait Watched: Show + Sized {
    /// What is sent for each event.
    type Answer;
    /// What it is called in an event.
    const KIND: &'static str;

    /// Begins a watch, or goes on with one.
    async fn open(
        client: &mut HearthClient,
        filter: &str,
        resume_token: &str,
    ) -> Result<Streaming<Self::Answer>, Status>;

    /// The type of an event, whom it is about, and what goes on after it.
    fn read(answer: Self::Answer) -> (String, Option<Self>, String);
}

/// What the server tells of by one stream of its own: both are of one shape.
macro_rules! watched {
    ($resource:ty: $kind:ident, $service:ident.$call:ident, $request:ident, $answer:ident, $events:ident) => {
        impl Watched for $resource {
            type Answer = v1::$answer;
            const KIND: &'static str = stringify!($kind);

            async fn open(
                client: &mut HearthClient,
                filter: &str,
                resume_token: &str,
            ) -> Result<Streaming<Self::Answer>, Status> {
                let (filter, resume_token) = (filter.to_owned(), resume_token.to_owned());
                let request = v1::$request { filter, resume_token };
                Ok(client.$service.$call(request).await?.into_inner())
            }

            fn read(it: Self::Answer) -> (String, Option<Self>, String) {
                let name = v1::$events::Type::as_str_name;
                (value_name(it.r#type, name, "TYPE_"), it.$kind.map(Self::from), it.resume_token)
            }
        }
    };
}

watched!(Vm: vm, vms.watch_vms, WatchVmsRequest, WatchVmsResponse, watch_vms_response);
watched!(Pool: pool, pools.watch_pools, WatchPoolsRequest, WatchPoolsResponse, watch_pools_response);

/// Tells of those that match `filter`, a line for each event.
///
/// # Errors
/// The server's, where asking again is no use.
pub(crate) async fn events<T: Watched>(context: &Context, filter: &str) -> Result<()> {
    let mut steps = pin!(steps::<T>(context, filter));
    let mut is_away = false;
    while let Some(step) = steps.next().await {
        let step = step?;
        let was_away = std::mem::replace(&mut is_away, matches!(step, Step::Away(_)));
        if !(was_away && is_away) {
            print_step(context.format, T::KIND, step)?;
        }
    }
    Ok(())
}

/// Shows those that match `filter` as a table that is kept as they are; where that cannot be written over, as
/// [`events`] does.
///
/// # Errors
/// As for [`events`].
pub(crate) async fn follow<T: Watched>(context: &Context, filter: &str) -> Result<()> {
    if !is_board(context.format) {
        return events::<T>(context, filter).await;
    }
    let mut steps = pin!(steps::<T>(context, filter));
    let mut board = Board::new();
    loop {
        // What comes meanwhile is shown together.
        let shown = tokio::time::Instant::now();
        let mut is_due = shown + PERIOD;
        loop {
            match tokio::time::timeout_at(is_due, steps.next()).await {
                Ok(Some(step)) => {
                    board.take(step?);
                    is_due = shown + PACE;
                }
                Ok(None) => return Ok(()),
                Err(_) => break,
            }
        }
        board.draw()?;
    }
}

/// Where a watch stands.
struct Watch<T: Watched> {
    client: HearthClient,
    filter: String,
    token: String,
    stream: Option<Streaming<T::Answer>>,
    /// How long to wait before the next is asked for.
    pause: Duration,
}

/// What a watch of those that match `filter` tells, until it ends in an error that asking again does not mend.
fn steps<T: Watched>(context: &Context, filter: &str) -> impl Stream<Item = Result<Step<T>>> {
    let watch = Watch::<T> {
        client: context.client.clone(),
        filter: filter.to_owned(),
        token: String::new(),
        stream: None,
        pause: Duration::ZERO,
    };
    unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
}

impl<T: Watched> Watch<T> {
    async fn next(&mut self) -> Result<Step<T>> {
        tokio::time::sleep(std::mem::take(&mut self.pause)).await;
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => match T::open(&mut self.client, &self.filter, &self.token).await {
                    Ok(stream) => self.stream.insert(stream),
                    Err(ended) => return self.ended(ended),
                },
            };
            match stream.message().await {
                Ok(Some(answer)) => {
                    let (what, item, token) = T::read(answer);
                    self.token = token;
                    match (what.as_str(), item) {
                        (_, Some(item)) => return Ok(Step::Event(what, item)),
                        ("SYNCED", None) => return Ok(Step::Synced),
                        (_, None) => {}
                    }
                }
                Ok(None) => return self.ended(Status::unavailable("the stream has ended")),
                Err(ended) => return self.ended(ended),
            }
        }
    }

    /// What becomes of a watch that ended so; the token says where it goes on.
    fn ended(&mut self, ended: Status) -> Result<Step<T>, Error> {
        self.stream = None;
        let details = StatusDetails::of(&ended);
        match details.reason.as_deref() {
            Some("RESUME_TOKEN_EXPIRED" | "WATCH_TOO_SLOW") => {
                self.token.clear();
                Ok(Step::Afresh)
            }
            _ => {
                self.pause = details.retry_after.unwrap_or(PAUSE);
                Ok(Step::Away(away(ended)?))
            }
        }
    }
}
