//! What is taken out of an answer before it is shown to others: what users wrote that may be a secret.

use serde_json::Value;

/// Fields whose texts are of users' making; in what is below them keys stay, since they say the shape.
const OF_USERS: [&str; 7] = [
    "labels",
    "boot_args",
    "command",
    "request",
    "expect_prefix",
    "console_tail",
    "refill_warm_up",
];

/// Replaces every text below such a field by how long it was.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match OF_USERS.contains(&name.as_str()) {
                    true => blacken(value),
                    false => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn blacken(value: &mut Value) {
    match value {
        Value::String(text) if !text.is_empty() => {
            *text = format!("{} bytes redacted", text.len());
        }
        Value::Object(fields) => fields.values_mut().for_each(blacken),
        Value::Array(items) => items.iter_mut().for_each(blacken),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_wrote_is_gone_and_the_shape_stays() {
        let mut value = serde_json::json!({
            "vms": [{ "name": "vms/a", "labels": { "token": "hunter2" } }],
            "spec": { "boot_args": "key=hunter2", "vcpu_count": 2 },
            "warm_up": [{ "command": ["login", "hunter2"], "request": null }],
            "refill_warm_up": ["login hunter2"],
            "failure": { "console_tail": "hunter2", "reason": "DIED" },
        });
        redact(&mut value);
        let text = value.to_string();
        assert!(!text.contains("hunter2") && !text.contains("login"), "{text}");
        assert!(text.contains(r#""token":"7 bytes redacted""#) && text.contains("vms/a"), "{text}");
        assert!(text.contains("DIED") && text.contains(r#""vcpu_count":2"#), "{text}");
    }
}
