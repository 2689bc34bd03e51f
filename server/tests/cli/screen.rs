//! A command with a terminal of its own: what it shows there, and what is typed.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command};

use rustix::termios::{Winsize, tcsetwinsize};

use crate::terminal::{open, read_more};

/// See the module.
pub(crate) struct Screen {
    person: File,
    child: Child,
    /// All that was written to it, escapes among it.
    pub(crate) shown: String,
}

impl Screen {
    /// Runs `command` with all that it reads and writes on a terminal of so many columns and lines, which is its
    /// controlling one: what is typed may be a signal.
    pub(crate) fn run(command: &Command, (columns, lines): (u16, u16)) -> Self {
        let (person, terminal) = open();
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            leader.current_dir(directory);
        }
        leader.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap());
        let child = leader.stderr(terminal).spawn().unwrap();
        // It holds the terminal open, whose end is when the program closes it.
        drop(leader);
        Self { person, child, shown: String::new() }
    }

    /// Waits until `text` was shown.
    pub(crate) fn until(&mut self, text: &str) -> &mut Self {
        while !self.shown.contains(text) {
            let goes_on = read_more(&mut self.person, &mut self.shown);
            assert!(goes_on, "it ended without {text:?}: {:?}", self.shown);
        }
        self
    }

    /// Types Ctrl-C, and waits for its end as [`Screen::end`] does.
    pub(crate) fn interrupt(mut self) -> (i32, String) {
        self.person.write_all(b"\x03").unwrap();
        self.end()
    }

    /// Waits for its end; answers its exit code and what was shown.
    pub(crate) fn end(mut self) -> (i32, String) {
        while read_more(&mut self.person, &mut self.shown) {}
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.shown)
    }
}

/// What was written to a terminal, without what moves its cursor or colours it.
pub(crate) fn plain(shown: &str) -> String {
    let (mut text, mut rest) = (String::new(), shown.chars());
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.find(char::is_ascii_alphabetic)),
            '\r' => {}
            c => text.push(c),
        }
    }
    text
}
