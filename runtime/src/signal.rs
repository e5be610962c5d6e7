//! Names and numbers of signals as images and Docker write them. In: text. Out: a number.
//! Source: OCI image spec, config.md, StopSignal; signal(7). Never: sends one.

use lighter_model::image_config::ImageConfig;
use nix::sys::signal::Signal;

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a signal; give a name such as SIGTERM, or a number from 1 to 64")]
pub struct SignalError {
    pub text: String,
}

/// The signal that asks a container of this image to stop; SIGTERM unless the image says otherwise.
pub fn stop_signal(image: &ImageConfig) -> Result<i32, SignalError> {
    match image.stop_signal.as_deref().map(str::trim) {
        None | Some("") => Ok(libc::SIGTERM),
        Some(text) => parse(text),
    }
}

/// `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub fn parse(text: &str) -> Result<i32, SignalError> {
    let wrong = || SignalError { text: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(rest, libc::SIGRTMIN()).ok_or_else(wrong);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(rest, libc::SIGRTMAX()).ok_or_else(wrong);
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| wrong())
}

/// `+3` from RTMIN, `-2` from RTMAX, nothing.
fn realtime(offset: &str, base: i32) -> Option<i32> {
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    let number = base.checked_add(offset)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{parse, stop_signal};
    use lighter_model::image_config::ImageConfig;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGQUIT", 3), ("SIGRTMIN+3", 37), ("RTMAX", 64)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["SIGNOTHING", "0", "65", "SIGRTMIN-1", "RTMAX+1", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(stop_signal(&ImageConfig::default()), Ok(15));
        let image = ImageConfig { stop_signal: Some("SIGQUIT".to_owned()), ..ImageConfig::default() };
        assert_eq!(stop_signal(&image), Ok(3));
    }
}
