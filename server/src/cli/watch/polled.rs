//! Lists that are asked for again and compared, of what the server does not tell by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::board::Board;
use super::{Step, away, is_board, print_event, print_step};
use crate::cli::context::Context;
use crate::cli::error::{Error, Result};
use crate::cli::output::Show;

/// How often it is asked for.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows what `ask` answers, which is resources of a `kind`, and what becomes of it.
///
/// # Errors
/// Those of `ask`, but that the server is away.
pub(crate) async fn list<T: Show>(
    context: &mut Context,
    kind: &str,
    mut ask: impl AsyncFnMut(&mut Context) -> Result<Vec<T>>,
) -> Result<()> {
    let format = context.format;
    let mut board = is_board(format).then(Board::new);
    let mut known: BTreeMap<String, (String, T)> = BTreeMap::new();
    let mut is_away = false;
    loop {
        let items = match ask(context).await {
            Ok(items) => Some(items),
            Err(Error::Server { status, .. }) => {
                let step = Step::<T>::Away(away(*status)?);
                match &mut board {
                    Some(board) => board.take(step),
                    None if is_away => {}
                    None => print_step(format, kind, step)?,
                }
                None
            }
            Err(error) => return Err(error),
        };
        is_away = items.is_none();
        match (&mut board, items) {
            (Some(board), items) => {
                if let Some(items) = items {
                    board.take_all(items);
                }
                board.draw()?;
            }
            (None, Some(items)) => {
                known = compare(known, items, |what, item| print_event(format, what, kind, item))?
            }
            (None, None) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Tells what differs between what was `known` and `items`, and answers what is known now.
fn compare<T: Show>(
    mut known: BTreeMap<String, (String, T)>,
    items: Vec<T>,
    mut tell: impl FnMut(&str, &T) -> Result<()>,
) -> Result<BTreeMap<String, (String, T)>> {
    let mut now = BTreeMap::new();
    for item in items {
        let text = serde_json::to_string(&item)
            .map_err(|error| Error::Failed(format!("an answer cannot be shown: {error}")))?;
        match known.remove(&item.key()) {
            None => tell("ADDED", &item)?,
            Some((before, _)) if before != text => tell("CHANGED", &item)?,
            Some(_) => {}
        }
        now.insert(item.key(), (text, item));
    }
    for (_, gone) in known.values() {
        tell("DELETED", gone)?;
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use hearth_proto::v1;

    use super::*;
    use crate::cli::view::Template;

    #[test]
    fn what_came_changed_and_went_is_told_once() {
        let template = |name: &str, generation| {
            let name = format!("templates/{name}");
            Template::from(v1::Template { name, generation, ..Default::default() })
        };
        let mut told = Vec::new();
        let mut known = BTreeMap::new();
        for items in [
            vec![template("a", 1), template("b", 1)],
            vec![template("a", 2), template("b", 1)],
            vec![template("b", 1)],
        ] {
            let tell = |what: &str, item: &Template| {
                told.push(format!("{what} {}", item.line()));
                Ok(())
            };
            known = compare(known, items, tell).unwrap();
        }
        let wanted = [
            "ADDED templates/a generation 1",
            "ADDED templates/b generation 1",
            "CHANGED templates/a generation 2",
            "DELETED templates/a generation 2",
        ];
        assert_eq!(told.len(), wanted.len(), "{told:?}");
        assert!(told.iter().zip(wanted).all(|(told, wanted)| told.starts_with(wanted)), "{told:?}");
    }
}
