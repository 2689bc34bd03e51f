//! Verbs on one VM take turns, and its end interrupts whoever waits.

use parking_lot::{Condvar, Mutex};

/// Whose turn it is on one VM.
#[derive(Debug, Default)]
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    doomed: bool,
}

/// The VM is being destroyed: there are no more turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doomed;

impl Turns {
    /// Waits for a turn. Blocks while another verb has it.
    ///
    /// # Errors
    /// [`Doomed`] at once when the VM is being destroyed, or when that begins while it waits.
    pub fn take(&self) -> Result<Turn<'_>, Doomed> {
        let mut state = self.state.lock();
        loop {
            match *state {
                State { doomed: true, .. } => return Err(Doomed),
                State { taken: false, .. } => {
                    state.taken = true;
                    return Ok(Turn { turns: self });
                }
                State { taken: true, .. } => self.changed.wait(&mut state),
            }
        }
    }

    /// Ends the giving of turns: those who wait give up, and [`Self::take_last`] is next.
    ///
    /// # Errors
    /// [`Doomed`] for everyone but the first who asks.
    pub fn doom(&self) -> Result<(), Doomed> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.doomed, true) {
            return Err(Doomed);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// The last turn, for the one who called [`Self::doom`]: waits for the verb under way only.
    pub fn take_last(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        while state.taken {
            self.changed.wait(&mut state);
        }
        state.taken = true;
        Turn { turns: self }
    }

    /// True from [`Self::doom`] on.
    pub fn is_doomed(&self) -> bool {
        self.state.lock().doomed
    }
}

/// A turn; dropped, it is the next one's.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.state.lock().taken = false;
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_end_interrupts_whoever_waits() {
        let turns = Turns::default();
        let under_way = turns.take().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take().map(drop));
            assert_eq!(turns.doom(), Ok(()));
            assert_eq!(waiting.join().unwrap(), Err(Doomed));
            assert_eq!(turns.doom(), Err(Doomed), "only one destroys");
            drop(under_way);
            drop(turns.take_last());
        });
        assert_eq!(turns.take().map(drop), Err(Doomed));
    }
}
