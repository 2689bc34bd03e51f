use std::io::Write as _;

use super::layers::{Flags, load_from};
use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn loaded(text: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Config, ConfigError> {
    let file = file(text);
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(Some(file.path()), variables, flags).map(|loaded| loaded.config)
}

#[test]
fn a_later_layer_wins() {
    let text = "listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n[default_pool]\ndepth = 1\n";
    let variables = [("HEARTH_ADMIN", "127.0.0.1:3"), ("HEARTH_DEFAULT_POOL__DEPTH", "7")];
    let flags = Flags { admin: Some(([127, 0, 0, 1], 4).into()), ..Flags::default() };
    let config = loaded(text, &variables, &flags).unwrap();
    assert_eq!(config.listen.port(), 1, "the file's");
    assert_eq!(config.default_pool.depth, 7, "the environment's");
    assert_eq!(config.admin.port(), 4, "the flag's");
    assert_eq!(config.limits, Limits::default(), "the default's");
}

#[test]
fn an_error_names_the_key_and_the_layer() {
    let none = Flags::default();
    let file_errors = [
        ("lissten = 1", "lissten"),
        ("listen = \"nowhere\"", "listen"),
        ("[limits]\nmax_wait = 5", "limits.max_wait"),
        ("[limits]\nmax_wait = \"soon\"", "limits.max_wait"),
        ("[limits]\nmax_waits = \"5s\"", "limits.max_waits"),
        ("[limits]\nmax_waiting = 0", "limits.max_waiting"),
        ("[default_pool]\ndepth = -1", "default_pool.depth"),
        ("[default_pool]\ndepth = 1000000", "default_pool.depth"),
        ("[providers.a]\nkind = \"vmware\"", "providers.a.kind"),
        ("[providers.a]\nkind = \"memory\"\nbinary = \"x\"", "providers.a.binary"),
        ("[providers.a]\nkind = \"memory\"\ncolour = 1", "providers.a.colour"),
        ("[providers.A]\nkind = \"memory\"", "providers.A"),
        ("default_provider = \"x\"\n[providers.a]\nkind = \"memory\"", "default_provider"),
        ("log_level = \"loud\"", "log_level"),
        ("[default_template]\nvcpu_count = 0", "default_template.vcpu_count"),
        ("admin = \"127.0.0.1:7070\"", "admin"),
    ];
    for (text, key) in file_errors {
        let error = loaded(text, &[], &none).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error}");
        assert!(error.layer.starts_with("the file "), "{text}: {error}");
        assert!(!error.why.is_empty() && error.to_string().contains(key), "{error}");
    }
    for (variable, key) in [
        ("HEARTH_LIMITS__MAX_WAITING", "limits.max_waiting"),
        ("HEARTH_LIMITS__NONSENSE", "limits.nonsense"),
        ("HEARTH_NONSENSE__X", "nonsense"),
        ("HEARTH_LISTEN", "listen"),
    ] {
        let error = loaded("", &[(variable, "nonsense")], &none).unwrap_err();
        assert_eq!((error.key.as_str(), error.layer.as_str()), (key, "the environment"), "{error}");
    }
    let broken = loaded("listen = = 3", &[], &none).unwrap_err();
    assert!(broken.layer.starts_with("the file "), "{broken}");
    let absent = load_from(Some("/does/not/exist".as_ref()), [], &none).unwrap_err();
    assert!(absent.layer.contains("/does/not/exist"));
}

#[test]
fn variables_of_others_are_let_be_and_odd_ones_are_told() {
    let names = ["HEARTH_ADDRESS", "HEARTH_REQUIRE", "HEARTH_LISTN", "HOME"];
    let variables = names.map(|name| (name.to_owned(), "x".to_owned()));
    let loaded = load_from(None, variables, &Flags::default()).unwrap();
    assert_eq!(loaded.ignored_variables, ["HEARTH_LISTN"]);
}

#[test]
fn a_kind_by_flag_is_the_default_providers() {
    let memory = Flags { provider: Some(ProviderKind::Memory), ..Flags::default() };
    let config = loaded("", &[], &memory).unwrap();
    assert_eq!(config.default_provider(), Some("memory"));
    assert_eq!(config.providers.len(), 1);
    let named = "[providers.fake]\nkind = \"memory\"\n";
    let config = loaded(named, &[], &memory).unwrap();
    assert_eq!(config.default_provider(), Some("fake"));
    let config = loaded(named, &[], &Flags::default()).unwrap();
    assert_eq!(config.default_provider(), Some("fake"));
    let config = loaded("", &[], &Flags::default()).unwrap();
    assert_eq!(config.default_provider(), Some(ProviderKind::DEFAULT.as_str()));
}

#[test]
fn durations_and_lists_come_from_the_environment_too() {
    let variables = [
        ("HEARTH_LIMITS__MAX_WAIT", "90s"),
        ("HEARTH_DEFAULT_TEMPLATE__WARM_UP", "[\"a\", \"b\"]"),
        ("HEARTH_DEFAULT_POOL__ENABLED", "false"),
        ("HEARTH_PROVIDERS__MAIN__KIND", "memory"),
        ("HEARTH_DEFAULT_POOL__WARM_STATE", "paused"),
    ];
    let config = loaded("", &variables, &Flags::default()).unwrap();
    assert_eq!(config.limits.max_wait, Duration::from_secs(90));
    assert_eq!(config.default_template.warm_up, ["a", "b"]);
    assert!(!config.default_pool.enabled);
    assert_eq!(config.default_provider(), Some("main"));
    assert_eq!(config.default_pool.warm_state, WarmState::Paused);
}

#[test]
fn the_page_has_every_key_and_its_default() {
    let page = include_str!("../../../docs/configuration.md");
    let check = |key: &str, value: Option<&serde_json::Value>| {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {key}"));
        let variable = format!("HEARTH_{}", key.replace('.', "__").to_uppercase());
        assert!(row.contains(&variable), "{key}: the row does not name {variable}");
        let shown = match value {
            None | Some(serde_json::Value::Null) => return,
            Some(serde_json::Value::String(text)) if text.is_empty() => "\"\"".to_owned(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        assert!(row.contains(&format!("`{shown}`")), "{key}: the row does not have {shown}");
    };
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (key, value) in defaults.as_object().unwrap() {
        match value {
            serde_json::Value::Object(section) if key != "providers" => {
                for (name, value) in section {
                    check(&format!("{key}.{name}"), Some(value));
                }
            }
            serde_json::Value::Object(_) => {}
            value => check(key, Some(value)),
        }
    }
    let mut full = ProviderConfig::of(ProviderKind::Memory);
    full.binary = Some("x".into());
    full.accel = Some(super::providers::Accel::Auto);
    full.machine = Some("x".to_owned());
    full.start_timeout = Some(Duration::ZERO);
    full.restore_timeout = Some(Duration::ZERO);
    full.snapshot_timeout = Some(Duration::ZERO);
    full.command_timeout = Some(Duration::ZERO);
    full.kill_timeout = Some(Duration::ZERO);
    full.console_max_bytes = Some(1);
    for key in serde_json::to_value(full).unwrap().as_object().unwrap().keys() {
        check(&format!("providers.NAME.{key}"), None);
    }
}
