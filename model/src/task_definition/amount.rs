//! Task-level `cpu` and `memory`, which ECS writes as text: `512`, `1 vCPU`, `0.5 GB`.
//! In: JSON text or number. Out: CPU units or MiB. Source: ECS API reference, RegisterTaskDefinition.
//! Never: rounds up, or uses a float (a decimal fraction is read digit by digit).

use serde::{Deserialize, Deserializer, Serializer};

/// CPU units of `512`, `"512"`, `"1 vCPU"`, `".5 vcpu"`; 1024 units are one vCPU.
pub fn cpu_units(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not an amount of CPU; write units like \"512\" or \"0.5 vCPU\"");
    let amount = parse(text, "vcpu").ok_or_else(wrong)?;
    u32::try_from(amount).map_err(|_| wrong())
}

/// MiB of `512`, `"512"`, `"0.5 GB"`, `"2GB"`; ECS's GB is 1024 MiB.
pub fn memory_mib(text: &str) -> Result<u64, String> {
    parse(text, "gb")
        .ok_or_else(|| format!("{text:?} is not an amount of memory; write MiB like \"512\" or \"0.5 GB\""))
}

/// A plain whole number, or 1024 times a decimal number that is followed by `unit`.
fn parse(text: &str, unit: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let Some(number) = text.strip_suffix(unit) else {
        return whole(&text);
    };
    let number = number.trim_end();
    let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if (integer.is_empty() && !number.contains('.')) || fraction.len() > 9 {
        return None;
    }
    let integer = if integer.is_empty() { 0 } else { whole(integer)? };
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    integer.checked_mul(1024)?.checked_add(whole(fraction)? * 1024 / scale)
}

fn whole(digits: &str) -> Option<u64> {
    // `parse` alone would let a sign pass.
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// A JSON number or text, before it is understood.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// serde for task-level `cpu`: read as number or text, written as text, as ECS does.
pub(super) mod cpu_text {
    use super::{Deserialize, Deserializer, NumberOrText, Serializer, cpu_units};
    pub(in super::super) fn serialize<S: Serializer>(units: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
        super::write(units.map(u64::from), to)
    }
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        let given = Option::<NumberOrText>::deserialize(from)?;
        given.map(|amount| cpu_units(&amount.text())).transpose().map_err(serde::de::Error::custom)
    }
}

/// serde for task-level `memory`: read as number or text, written as text, as ECS does.
pub(super) mod memory_text {
    use super::{Deserialize, Deserializer, NumberOrText, Serializer, memory_mib};
    pub(in super::super) fn serialize<S: Serializer>(mib: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        super::write(*mib, to)
    }
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let given = Option::<NumberOrText>::deserialize(from)?;
        given.map(|amount| memory_mib(&amount.text())).transpose().map_err(serde::de::Error::custom)
    }
}

fn write<S: Serializer>(amount: Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match amount {
        Some(amount) => to.serialize_str(&amount.to_string()),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_cpu_is_read_in_units_and_vcpus() {
        for (text, units) in [
            ("512", 512),
            ("1 vCPU", 1024),
            (".5 vcpu", 512),
            ("0.25vCPU", 256),
            ("2.0 vCPU", 2048),
            (" 128 ", 128),
        ] {
            assert_eq!(cpu_units(text), Ok(units), "{text}");
        }
        for text in ["", "vCPU", ".", ". vCPU", "-1", "+1", "1.5", "1 GB", "1e3", "99999999999", "1..5 vCPU"]
        {
            assert!(cpu_units(text).is_err(), "{text}");
        }
    }

    #[test]
    fn task_memory_is_read_in_mib_and_gb() {
        for (text, mib) in [("512", 512), ("1GB", 1024), ("0.5 GB", 512), (".125 gb", 128), ("30 GB", 30720)]
        {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for text in ["", "GB", "1 MB", "1.5", "18446744073709551615 GB"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9. vVcCpPuUgGbB+-]{0,24}") {
            let _ = cpu_units(&text);
            let _ = memory_mib(&text);
        }
    }
}
