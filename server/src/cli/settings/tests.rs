use super::*;

const FILE: &str = r#"
address = "https://a:1"
ca = "ca.pem"
token_file = "token"

[contexts.b]
address = "https://b:1"
"#;

fn choose(flags: Flags, variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let file = file.map(|text| (File::parse(text).unwrap(), PathBuf::from("/home/me/client.toml")));
    Settings::choose(flags, variable, file)
}

fn address(address: &str) -> Flags {
    Flags { address: Some(address.to_owned()), ..Flags::default() }
}

fn complaint(result: Result<Settings>) -> String {
    match result.unwrap_err() {
        Error::Usage(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let where_to =
        |flags, variables: &[_], file| choose(flags, variables, file).unwrap().where_to();
    let set = [("HEARTH_ADDRESS", "http://v:1")];
    assert_eq!(where_to(address("http://f:1"), &set, Some(FILE)), "http://f:1 (--address)");
    assert_eq!(where_to(Flags::default(), &set, Some(FILE)), "http://v:1 (HEARTH_ADDRESS)");
    let filed = "https://a:1 (/home/me/client.toml)";
    assert_eq!(where_to(Flags::default(), &[], Some(FILE)), filed);
    assert_eq!(where_to(Flags::default(), &[], None), "http://127.0.0.1:7070 (default)");
}

#[test]
fn what_the_file_has_for_its_server_goes_to_no_other() {
    let filed = choose(Flags::default(), &[], Some(FILE)).unwrap();
    assert_eq!(filed.ca.as_ref().unwrap().value, Path::new("/home/me/ca.pem"));
    assert!(filed.who().unwrap().contains("/home/me/token"));
    let same = choose(address("https://a:1"), &[], Some(FILE)).unwrap();
    assert!(same.who().is_some());
    for (flags, variables) in [
        (address("https://c:1"), &[][..]),
        (Flags::default(), &[("HEARTH_ADDRESS", "https://c:1")]),
        (Flags { context: Some("b".to_owned()), ..Flags::default() }, &[]),
        (Flags::default(), &[("HEARTH_CONTEXT", "b")]),
    ] {
        let other = choose(flags, variables, Some(FILE)).unwrap();
        assert!(other.who().is_none() && other.ca.is_none(), "{other:?}");
    }
}

#[test]
fn a_context_is_one_that_there_is() {
    let context = |name: &str| Flags { context: Some(name.to_owned()), ..Flags::default() };
    let b = choose(context("b"), &[], Some(FILE)).unwrap();
    assert_eq!(b.address(), "https://b:1");
    let why = complaint(choose(context("c"), &[], Some(FILE)));
    assert!(why.contains("--context: c") && why.contains("[b]"), "{why}");
    assert!(complaint(choose(context("c"), &[], None)).contains("no client.toml"));
    let chosen = format!("context = \"b\"\n{FILE}");
    assert_eq!(choose(Flags::default(), &[], Some(&chosen)).unwrap().address(), "https://b:1");
}

#[test]
fn a_file_says_only_what_it_can() {
    for (text, wanted) in [
        ("adress = \"a\"", "adress"),
        ("token = \"secret\"", "token_file"),
        ("[contexts.a.contexts.b]", "a context has no contexts"),
        ("[contexts.a]\ncontext = \"b\"", "a context has no contexts"),
    ] {
        let why = File::parse(text).unwrap_err();
        assert!(why.contains(wanted), "{text}: {why}");
    }
}

#[test]
fn a_certificate_goes_with_its_key() {
    let flags = Flags { certificate: Some("me.pem".into()), ..Flags::default() };
    assert!(complaint(choose(flags, &[], None)).contains("--key"));
    let both = [("HEARTH_CERTIFICATE", "me.pem"), ("HEARTH_KEY", "me.key")];
    assert!(choose(Flags::default(), &both, None).unwrap().who().unwrap().contains("me.pem"));
}

#[test]
fn a_token_is_shown_nowhere() {
    let with = choose(Flags::default(), &[("HEARTH_TOKEN", "hunter2")], None).unwrap();
    assert_eq!(with.who().unwrap(), "the token in HEARTH_TOKEN");
    assert!(!format!("{with:?}").contains("hunter2"));
    assert_eq!(with.credentials().unwrap().token.unwrap().as_str(), "hunter2");
}
