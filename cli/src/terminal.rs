//! The person's terminal: its size, raw mode, and its certain return to what it was.
//! In: standard input. Out: a `RawMode` that restores on drop, on a panic and on the signals that
//! end a program. Owns: the terminal's settings while raw. Never: changes what is no terminal.
//! Source: termios(3).

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::sync::{Mutex, Once, PoisonError};

/// What to go back to; `None` while the terminal is as it was found.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw while it lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Every key goes to the container from here on.
    pub fn enter() -> std::io::Result<Self> {
        let found = tcgetattr(std::io::stdin())?;
        let mut raw = found.clone();
        raw.make_raw();
        // In a release build a panic unwinds nothing, but its hook runs.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        let raw_mode = Self(());
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(raw_mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back; may be called again and from anywhere.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(found) = saved {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &found);
    }
}

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Rows and columns of the terminal at standard input, else at standard output.
pub fn size() -> Option<(u32, u32)> {
    let size = tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row.into(), size.ws_col.into()))
}
