use std::io::Write as _;

use super::layers::{Flags, load_from};
use super::*;
use hearth_pool::bucket::Rate;
use hearth_pool::budget::Budget;
use hearth_pool::ids::PoolId;
use hearth_pool::tenants::{TenantSettings, TenantsSettings};

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
    assert_eq!(config.default_pool.depth, Some(7), "the environment's");
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
fn what_tenants_and_pools_may_have_is_said_in_tables() {
    let text = "[limits]\nprobe_interval = \"0s\"\n[limits.restore_rate]\nper_second = 5\nburst = 2\n\
                [limits.tenants.named.ci]\nweight = 7\nmax_vms = 10\n\
                acquire_rate = { per_second = 0.5, burst = 1 }\nwarm_floors = { web = 2 }\n";
    let variables = [
        ("HEARTH_LIMITS__BUDGET__MAX_VMS", "100"),
        ("HEARTH_LIMITS__RESTORE_RATE__BURST", "9"),
        ("HEARTH_LIMITS__TENANTS__DEFAULT__MAX_VMS", "4"),
        ("HEARTH_LIMITS__TENANTS__NAMED__CI__WEIGHT", "8"),
    ];
    let limits = loaded(text, &variables, &Flags::default()).unwrap().limits.to_pool();
    assert!(limits.probe_interval.is_zero());
    assert_eq!(limits.restore_rate, Some(Rate { per_second: 5.0, burst: 9 }));
    assert_eq!(limits.budget, Budget { max_vms: Some(100), ..Budget::default() });
    assert_eq!(limits.tenants.default.max_vms, Some(4));
    let ci = &limits.tenants.named["ci"];
    assert_eq!((ci.weight, ci.max_vms), (8, Some(10)));
    assert_eq!(ci.acquire_rate, Some(Rate { per_second: 0.5, burst: 1 }));
    assert_eq!(ci.warm_floors, BTreeMap::from([(PoolId::parse("web").unwrap(), 2)]));
}

#[test]
fn a_table_that_cannot_be_is_refused_by_key() {
    let errors = [
        ("[limits]\nmax_waiting_total = 0", "limits.max_waiting_total"),
        ("[limits.restore_rate]\nper_second = 0\nburst = 1", "limits.restore_rate"),
        ("[limits.restore_rate]\nper_second = 1", "limits.restore_rate"),
        ("[limits.budget]\nmax_vms = 0", "limits.budget.max_vms"),
        ("[limits.budget]\nmax_gpus = 1", "limits.budget.max_gpus"),
        ("[limits.tenants.default]\nweight = 0", "limits.tenants.default.weight"),
        ("[limits.tenants.default.warm_floors]\nweb = 1", "limits.tenants.default.warm_floors"),
        (
            "[limits.tenants.named.a.acquire_rate]\nper_second = 1\nburst = 0",
            "limits.tenants.named.a.acquire_rate",
        ),
        (
            "[limits.tenants.named.a.warm_floors]\nweb = 100001",
            "limits.tenants.named.a.warm_floors.web",
        ),
        #[cfg(feature = "qemu")]
        ("[providers.a]\nkind = \"qemu\"\nuser = \"0:0\"", "providers.a.user"),
        #[cfg(feature = "qemu")]
        ("[providers.a]\nkind = \"qemu\"\nuser = \"hearth-vm\"", "providers.a.user"),
        ("[providers.a]\nkind = \"memory\"\nuser = \"1:1\"", "providers.a.user"),
    ];
    for (text, key) in errors {
        let error = loaded(text, &[], &Flags::default()).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error}");
    }
}

#[test]
fn the_default_pool_has_a_depth_or_a_promise_and_never_both() {
    let read = |text: &str| {
        let text = format!("[default_pool]\n{text}");
        loaded(&text, &[], &Flags::default()).map(|config| config.default_pool.sizing())
    };
    assert_eq!(read(""), Ok(Sizing::Fixed { depth: DEFAULT_DEPTH }));
    let promised = Sizing::Promised { miss_ratio: 0.001, min: 0, max: 64 };
    assert_eq!(read("miss_ratio = 0.001\nmax = 64"), Ok(promised));
    let errors = [
        ("depth = 4\nmiss_ratio = 0.001\nmax = 64", "miss_ratio"),
        ("miss_ratio = 1\nmax = 64", "miss_ratio"),
        ("miss_ratio = 0.1", "miss_ratio"),
        ("max = 64", "max"),
        ("depth = 2\nmin = 1", "min"),
        ("miss_ratio = 0.1\nmin = 3\nmax = 2", "max"),
        ("miss_ratio = 0.1\nmax = 100001", "max"),
    ];
    for (text, key) in errors {
        assert_eq!(read(text).unwrap_err().key, format!("default_pool.{key}"), "{text}");
    }
    // The layer that made them two is named.
    let variables = [("HEARTH_DEFAULT_POOL__MISS_RATIO", "0.1"), ("HEARTH_DEFAULT_POOL__MAX", "9")];
    let error = loaded("[default_pool]\ndepth = 4", &variables, &Flags::default()).unwrap_err();
    assert_eq!(error.layer, "the environment");
    assert!(error.why.contains("default_pool.depth"), "{error}");
}

#[test]
fn of_a_misspelt_key_the_right_one_is_told() {
    let why = |text: &str| loaded(text, &[], &Flags::default()).unwrap_err().why;
    assert!(why("[limits]\nrestore_timout = \"3s\"").contains("is restore_timeout meant?"));
    assert!(why("[provider.main]\nkind = \"qemu\"").contains("is providers meant?"));
    let another = why("colour = 1");
    assert!(!another.contains("meant?") && another.contains("there are listen,"), "{another}");
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
fn what_is_reached_from_elsewhere_is_encrypted_and_tells_callers_apart() {
    let load = |text: &str, insecure| {
        loaded(text, &[], &Flags { insecure, ..Flags::default() }).map_err(|error| error.why)
    };
    let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let auth = "[auth]\nfile = \"a\"\n";
    for open in ["0.0.0.0:7070", "10.0.0.5:7070", "[::]:7070"] {
        let listen = format!("listen = \"{open}\"\n");
        for (more, lacks) in [
            (String::new(), "tls.certificate and auth.file"),
            (tls.to_owned(), "auth.file"),
            (auth.to_owned(), "tls.certificate"),
        ] {
            let why = load(&format!("{listen}{more}"), false).unwrap_err();
            assert!(why.contains(lacks) && why.contains("--insecure"), "{open} {more}: {why}");
            assert!(load(&format!("{listen}{more}"), true).is_ok());
        }
        assert!(load(&format!("{listen}{tls}{auth}"), false).is_ok());
    }
    for inside in ["127.0.0.1:7070", "127.9.9.9:7070", "[::1]:7070"] {
        assert!(load(&format!("listen = \"{inside}\""), false).is_ok(), "{inside}");
    }
}

#[test]
fn half_of_tls_is_refused_by_key() {
    let cases = [
        ("certificate = \"c\"", "tls.certificate"),
        ("key = \"k\"", "tls.key"),
        ("client_ca = \"a\"", "tls.client_ca"),
        ("require_client_certificate = true", "tls.require_client_certificate"),
    ];
    for (text, key) in cases {
        let error = loaded(&format!("[tls]\n{text}"), &[], &Flags::default()).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error}");
    }
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
                for (name, value) in section.iter().filter(|(_, value)| !value.is_object()) {
                    check(&format!("{key}.{name}"), Some(value));
                }
            }
            serde_json::Value::Object(_) => {}
            value => check(key, Some(value)),
        }
    }
    let tables = serde_json::to_value(full_limits()).unwrap();
    let of = |pointer: &str| tables.pointer(pointer).unwrap().as_object().unwrap().clone();
    for (table, values) in [
        ("restore_rate", of("/restore_rate")),
        ("budget", of("/budget")),
        ("streams", of("/streams")),
        ("tenants.named.NAME", of("/tenants/named/NAME")),
        ("tenants.named.NAME.acquire_rate", of("/tenants/named/NAME/acquire_rate")),
        ("tenants.default", of("/tenants/default")),
    ] {
        for (key, value) in values.iter().filter(|(_, value)| !value.is_object()) {
            let has_defaults = matches!(table, "tenants.default" | "streams");
            check(&format!("limits.{table}.{key}"), has_defaults.then_some(value));
        }
    }
    let full = serde_json::to_value(full_provider()).unwrap();
    for (key, value) in full.as_object().unwrap() {
        match value {
            serde_json::Value::Object(table) => {
                table
                    .keys()
                    .for_each(|below| check(&format!("providers.NAME.{key}.{below}"), None));
            }
            _ => check(&format!("providers.NAME.{key}"), None),
        }
    }
}

/// Limits with every table that there is.
fn full_limits() -> Limits {
    let rate = Some(Rate { per_second: 1.5, burst: 2 });
    let tenant =
        TenantSettings { acquire_rate: rate, request_rate: None, ..TenantSettings::default() };
    let tenants = TenantsSettings {
        named: BTreeMap::from([("NAME".to_owned(), tenant)]),
        ..TenantsSettings::default()
    };
    Limits { restore_rate: rate, tenants, ..Limits::default() }
}

/// A provider with every key that any kind has.
fn full_provider() -> ProviderConfig {
    use super::firecracker::{CgroupVersion, Jailer, Memory, Mmds};
    let time = Some(Duration::from_secs(1));
    ProviderConfig {
        kind: ProviderKind::Memory,
        durable: Some(true),
        binary: Some("x".into()),
        start_timeout: time,
        restore_timeout: time,
        command_timeout: time,
        kill_timeout: time,
        console_max_bytes: Some(1),
        accel: Some(Accel::Auto),
        machine: Some("x".to_owned()),
        user: Some("1:1".to_owned()),
        snapshot_timeout: time,
        jailer: Some(Jailer {
            binary: Some("x".into()),
            first_uid: Some(1),
            uid_count: Some(1),
            cgroup_version: Some(CgroupVersion::V1),
            cgroups: vec!["pids.max=1".to_owned()],
            netns: Some("/x".into()),
            resource_limits: vec!["fsize=1".to_owned()],
            new_pid_ns: Some(true),
            daemonize: Some(true),
        }),
        memory_backend: Some(Memory::Uffd),
        uffd_handler: Some("/x".into()),
        agent_port: Some(1),
        entropy: Some(true),
        mmds: Some(Mmds { without_token: Some(true), ipv4_address: Some([169, 254, 1, 1].into()) }),
        clock_realtime: Some(true),
        metrics: Some(true),
        snapshot_timeout_per_gib: time,
        socket: Some("x".into()),
        command: Some(vec!["x".to_owned()]),
        networks: Some(vec!["x".to_owned()]),
        runtime: Some("x".to_owned()),
        pids_limit: Some(1),
        remove_timeout: time,
        watch_period: time,
    }
}

#[test]
fn every_key_of_a_provider_is_of_some_kind_and_no_kind_has_others() {
    use clap::ValueEnum as _;
    let full = serde_json::to_value(full_provider()).unwrap();
    let there_are: Vec<_> = full.as_object().unwrap().keys().map(String::as_str).collect();
    let kinds = ProviderKind::value_variants();
    for key in kinds.iter().flat_map(|kind| kind.keys()).copied().flatten() {
        assert!(there_are.contains(key), "{key} is no key of ProviderConfig");
    }
    #[cfg(all(feature = "qemu", feature = "firecracker", feature = "docker", feature = "smolvm"))]
    for key in there_are.iter().filter(|key| **key != "kind") {
        let has = |kind: &&ProviderKind| kind.keys().iter().any(|keys| keys.contains(key));
        assert!(kinds.iter().any(|kind| has(&kind)), "no kind has {key}");
    }
}

#[cfg(feature = "firecracker")]
mod firecracker {
    use super::*;
    use hearth_providers::firecracker::{CgroupVersion, FirecrackerConfig, JailerConfig};

    const KIND: &str = "[providers.a]\nkind = \"firecracker\"\n";

    fn provider(rest: &str) -> Result<FirecrackerConfig, ConfigError> {
        let off = "[default_template]\nenabled = false\n";
        let config = loaded(&format!("{off}{KIND}{rest}"), &[], &Flags::default())?;
        Ok(config.providers["a"].to_firecracker())
    }

    #[test]
    fn what_is_not_said_is_as_the_provider_has_it() {
        assert_eq!(provider("").unwrap(), FirecrackerConfig::default());
        let jailed = provider("[providers.a.jailer]\n").unwrap();
        assert_eq!(jailed.jailer, Some(JailerConfig::default()));
        assert!(provider("mmds = {}").unwrap().mmds.is_some());
    }

    #[test]
    fn what_is_said_arrives() {
        let config = provider(
            "binary = \"/fc\"\nmemory_backend = \"uffd\"\nuffd_handler = \"/h\"\nagent_port = 7\n\
             entropy = false\nclock_realtime = true\nmetrics = true\nstart_timeout = \"1s\"\n\
             snapshot_timeout_per_gib = \"2s\"\nmmds = { without_token = true }\n\
             [providers.a.jailer]\nfirst_uid = 5\nuid_count = 6\ncgroup_version = 1\n\
             cgroups = [\"cpu.shares=2\"]\nresource_limits = [\"no-file=9\"]\nnetns = \"/n\"\n\
             new_pid_ns = true\ndaemonize = true",
        );
        let config = config.unwrap();
        assert_eq!(config.binary.to_str(), Some("/fc"));
        assert!(format!("{:?}", config.memory).contains("/h"));
        assert_eq!((config.agent_port, config.entropy), (Some(7), false));
        assert!(config.clock_realtime && config.metrics && config.mmds.unwrap().without_token);
        assert_eq!(config.start_timeout, Duration::from_secs(1));
        assert_eq!(config.snapshot_timeout_per_gib, Duration::from_secs(2));
        let expected = JailerConfig {
            first_uid: 5,
            uid_count: 6,
            cgroup_version: CgroupVersion::V1,
            cgroups: vec!["cpu.shares=2".to_owned()],
            resource_limits: vec!["no-file=9".to_owned()],
            netns: Some("/n".into()),
            new_pid_ns: true,
            daemonize: true,
            ..JailerConfig::default()
        };
        assert_eq!(config.jailer, Some(expected));
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        let jailer = "[providers.a.jailer]\n";
        for (rest, key) in [
            ("accel = \"kvm\"", "accel"),
            ("snapshot_timeout = \"1s\"", "snapshot_timeout"),
            ("start_timeout = \"0s\"", "start_timeout"),
            ("snapshot_timeout_per_gib = \"0s\"", "snapshot_timeout_per_gib"),
            ("memory_backend = \"tape\"", "memory_backend"),
            ("memory_backend = \"uffd\"", "memory_backend"),
            ("memory_backend = \"uffd\"\nuffd_handler = \"x\"", "uffd_handler"),
            ("uffd_handler = \"/x\"", "uffd_handler"),
            ("agent_port = 0", "agent_port"),
            ("agent_port = 4294967295", "agent_port"),
            ("mmds = { ipv4_address = \"10.0.0.1\" }", "mmds.ipv4_address"),
            ("mmds = { colour = 1 }", "mmds.colour"),
            (&format!("{jailer}colour = 1"), "jailer.colour"),
            (&format!("{jailer}uid_count = 0"), "jailer.uid_count"),
            (&format!("{jailer}first_uid = 0"), "jailer.first_uid"),
            (&format!("{jailer}first_uid = 4294967290"), "jailer.first_uid"),
            (&format!("{jailer}uid_count = 4294967290"), "jailer.uid_count"),
            (&format!("{jailer}cgroup_version = 3"), "jailer.cgroup_version"),
            (&format!("{jailer}cgroups = [\"memory.max\"]"), "jailer.cgroups"),
            (&format!("{jailer}cgroups = [\"memory.max=\"]"), "jailer.cgroups"),
            (&format!("{jailer}cgroups = [\"../memory.max=1\"]"), "jailer.cgroups"),
            (&format!("{jailer}cgroups = [\"memory=1\"]"), "jailer.cgroups"),
            (&format!("{jailer}resource_limits = [\"cpu=1\"]"), "jailer.resource_limits"),
            (&format!("{jailer}resource_limits = [\"fsize=big\"]"), "jailer.resource_limits"),
            (&format!("{jailer}netns = \"name\""), "jailer.netns"),
        ] {
            let error = provider(rest).expect_err(rest);
            assert_eq!(error.key, format!("providers.a.{key}"), "{rest}: {error}");
            assert!(error.layer.starts_with("the file "), "{rest}: {error}");
        }
        let other = "[providers.b]\nkind = \"memory\"\nagent_port = 1\n";
        let error = loaded(other, &[], &Flags::default()).unwrap_err();
        assert_eq!(error.key, "providers.b.agent_port");
    }

    #[test]
    fn tables_come_from_the_environment_too() {
        let variables = [
            ("HEARTH_PROVIDERS__A__JAILER__CGROUP_VERSION", "1"),
            ("HEARTH_PROVIDERS__A__JAILER__CGROUPS", "[\"pids.max=5\"]"),
            ("HEARTH_DEFAULT_TEMPLATE__ENABLED", "false"),
        ];
        let config = loaded(KIND, &variables, &Flags::default()).unwrap();
        let jailer = config.providers["a"].to_firecracker().jailer.unwrap();
        assert_eq!(jailer.cgroup_version, CgroupVersion::V1);
        assert_eq!(jailer.cgroups, ["pids.max=5"]);
    }

    #[test]
    fn a_default_template_whose_agent_nobody_reaches_is_refused() {
        let kernel = "kernel = \"/vmlinux\"\n";
        let marker = "ready_marker = \"READY\"\n";
        for (port, template, refused) in [
            ("", "", Some(("ready_marker", "agent_port"))),
            ("agent_port = 7\n", "", Some(("ready_marker", "vsock_cid"))),
            ("", "vsock_cid = 3\n", Some(("ready_marker", "agent_port"))),
            ("agent_port = 7\n", "vsock_cid = 3\n", None),
            ("", marker, None),
            ("", &format!("{marker}warm_up = [\"x\"]\n"), Some(("warm_up", "agent_port"))),
            ("agent_port = 7\n", "vsock_cid = 2\n", Some(("vsock_cid", "at least 3"))),
        ] {
            let text = format!("[default_template]\n{kernel}{template}{KIND}{port}");
            let result = loaded(&text, &[], &Flags::default());
            match refused {
                None => drop(result.unwrap()),
                Some((key, why)) => {
                    let error = result.expect_err(&text);
                    assert_eq!(error.key, format!("default_template.{key}"), "{text}: {error}");
                    assert!(error.why.contains(why), "{text}: {error}");
                }
            }
        }
    }
}
