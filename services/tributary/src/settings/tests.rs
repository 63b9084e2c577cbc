use super::*;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    from_text("tributary.toml", text, environment).map_err(|invalid| invalid.0)
}

#[test]
fn an_empty_file_gives_every_default() {
    let settings = read("", &[]).unwrap();
    assert_eq!(settings.public.listen, "127.0.0.1:8080");
    assert_eq!(settings.public_url(), "http://127.0.0.1:8080");
    assert_eq!(settings.desk.listen, "127.0.0.1:8081");
    assert_eq!(settings.ops.listen, "127.0.0.1:9090");
    assert_eq!(settings.data.path, Path::new("data"));
    assert!(settings.keys.files.is_empty());
    assert_eq!(settings.store_url(), "sqlite:data/desk.db");
    assert_eq!(settings.bus_url(), "local:data/log.db");
    assert_eq!(settings.bus.partitions, 8);
    assert_eq!(settings.spool_path(), Path::new("data/spool.db"));
    assert_eq!(settings.spool.max_bytes, 1 << 30);
    assert_eq!(settings.blobs_url(), "file:data/blobs");
    assert_eq!(settings.leases.period_seconds, 30);
    assert_eq!(settings.log.format, None);
    assert_eq!(settings.log.level, "info");
    assert_eq!(settings.router.readers, 2);
    assert_eq!(settings.queues.len(), 1);
    assert_eq!(settings.queues[0].name, "support");
    assert!(settings.accounts.is_empty() && settings.calendars.is_empty() && settings.policies.is_empty());
    assert!(settings.rules.is_empty() && settings.people.is_empty() && settings.employee_domains.is_empty());
}

/// The manual's examples are lines that begin with `#` and no space.
#[test]
fn the_examples_of_the_manual_can_be_read() {
    let text: String = DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example) if !example.starts_with(' ') => format!("{example}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let settings = read(&text, &[]).unwrap();
    assert!(settings.accounts.iter().any(|account| account.name == "demo"));
    assert_eq!(settings.public_url(), "https://desk.example.com");
    assert_eq!(settings.employee_domains, ["example.com"]);
    let checked = check::check(settings, crate::keys::throwaway().unwrap()).unwrap();
    assert_eq!(checked.declarations().len(), 1);
    assert_eq!(checked.people(), ["Grace Hopper"]);
    let declared = checked.declared();
    let counts = (declared.calendars.len(), declared.policies.len(), declared.rules.len());
    assert_eq!(counts, (1, 1, 1));
}

#[test]
fn the_whole_is_checked() {
    let account = |rest: &str| format!("[[accounts]]\nname = \"a\"\nchannel = \"webhook\"\n{rest}\n");
    let secured = |rest: &str| format!("[bus]\nurl = \"kafka:h:1\"\n[bus.kafka]\n{rest}\n");
    let secrets = "secrets = [\"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]";
    let cases = [
        (
            "[desk]\nlisten = \"nowhere\"".to_owned(),
            "desk.listen: \"nowhere\" is no address",
        ),
        (
            "[ops]\nlisten = \"127.0.0.1:8080\"".to_owned(),
            "ops.listen: 127.0.0.1:8080 is public.listen already",
        ),
        (
            "[public]\nurl = \"ftp://x\"".to_owned(),
            "public.url: \"ftp://x\" is no address of a site",
        ),
        (
            "[store]\nurl = \"mysql:x\"".to_owned(),
            "store.url: must begin with sqlite: or postgres://",
        ),
        (
            "[bus]\nurl = \"kafka:host\"".to_owned(),
            "bus.url: \"host\" is no broker",
        ),
        (
            "[bus]\npartitions = 0".to_owned(),
            "bus.partitions: 0 is not between 1 and 1000",
        ),
        (
            secured("security_protocol = \"tls\""),
            "bus.kafka.security_protocol: \"tls\" is none of plaintext, ssl",
        ),
        (
            secured("security_protocol = \"sasl_ssl\"\nsasl_mechanism = \"PLAIN\"\nusername = \"u\""),
            "bus.kafka.password: missing",
        ),
        (
            secured("security_protocol = \"sasl_ssl\"\nsasl_mechanism = \"X\"\nusername = \"u\"\npassword = \"p\""),
            "bus.kafka.sasl_mechanism: \"X\" is none of PLAIN",
        ),
        (
            secured("password = \"secret\""),
            "bus.kafka.password: is of no use with security_protocol \"plaintext\"",
        ),
        (
            secured("security_protocol = \"ssl\"\nca = \"no certificate\""),
            "bus.kafka: these settings do not do for kafka",
        ),
        (
            "[bus.kafka]\nsecurity_protocol = \"ssl\"".to_owned(),
            "bus.kafka.security_protocol: is of no use, because bus.url names no Kafka",
        ),
        (
            "[leases]\nperiod_seconds = 0".to_owned(),
            "leases.period_seconds: 0 is not between",
        ),
        ("[router]\nreaders = 65".to_owned(), "router.readers: 65 is not between"),
        ("[spool]\nmax_bytes = 1".to_owned(), "spool.max_bytes: 1 is not between"),
        (
            "[log]\nlevel = \"loud\"".to_owned(),
            "log.level: \"loud\" is none of error",
        ),
        ("queues = []".to_owned(), "queues: there must be at least one"),
        ("[[people]]\nname = \"\"".to_owned(), "people[0].name: is empty"),
        (
            "[[people]]\nname = \"x\"\n[[people]]\nname = \"x\"".to_owned(),
            "people.x: there are two of this name",
        ),
        (
            "[[queues]]\nname = \"q\"\npolicy = \"p\"".to_owned(),
            "queues.q.policy: \"p\" is not declared, and nothing else is",
        ),
        (
            account(&format!("queue = \"q\"\n{secrets}")),
            "accounts.a.queue: \"q\" is not declared; there are support",
        ),
        (
            account("secrest = []"),
            "accounts.a.secrest: unknown key; did you mean accounts.a.secrets?",
        ),
        (account(""), "accounts.a.secrets: missing"),
        (
            account("secrets = [\"x\"]"),
            "accounts.a: secrets: a webhook secret begins with whsec_",
        ),
        (
            "[[accounts]]\nname = \"a\"\nchannel = \"wehbook\"".to_owned(),
            "accounts.a: there is no channel \"wehbook\", did you mean \"webhook\"?",
        ),
        (
            "[[rules]]\nname = \"r\"\nthen = { queue = \"suport\" }".to_owned(),
            "rule `r`: ",
        ),
        (
            "[[calendars]]\nname = \"c\"\ntime_zone = \"Mars/Base\"\nhours.mon = [\"08:00-09:00\"]".to_owned(),
            "calendar `c`: ",
        ),
        (
            "[[policies]]\nname = \"p\"\ncalendar = \"c\"".to_owned(),
            "policy `p`: unknown calendar `c`",
        ),
    ];
    for (text, expected) in cases {
        let settings = read(&text, &[]).unwrap();
        let checked = check::check(settings, crate::keys::throwaway().unwrap());
        let problems = checked.err().map(|invalid| invalid.0).unwrap_or_default();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with(expected), "{text}: {problems:?}");
    }
}

#[test]
fn problems_name_the_key_and_the_nearest_right_one() {
    let cases = [
        (
            "[public]\nlisten_on = \"x\"",
            "public.listen_on: unknown key; did you mean public.listen?",
        ),
        ("[pubic]\nlisten = \"x\"", "pubic: unknown key; did you mean public?"),
        ("[stroe]\nurl = \"x\"", "stroe: unknown key; did you mean store?"),
        (
            "[spool]\nmax_byte = 1",
            "spool.max_byte: unknown key; did you mean spool.max_bytes?",
        ),
        (
            "[[queues]]\nname = \"a\"\npolcy = \"b\"",
            "queues.a.polcy: unknown key; did you mean queues.a.policy?",
        ),
        (
            "[[rules]]\nname = \"vip\"\nthen = { qeue = \"a\" }",
            "rules.vip.then.qeue: unknown key; did you mean rules.vip.then.queue?",
        ),
        ("[[queues]]\npolicy = \"b\"", "queues[0].name: missing"),
        ("[queues]\nname = \"b\"", "queues: this is a list; write [[queues]]"),
        ("[[accounts]]\nname = \"a\"", "accounts.a.channel: missing"),
        ("[public]\nlisten =", "tributary.toml:2: "),
        ("[router]\nreaders = \"many\"", "router.readers: "),
        ("[log]\nformat = \"xml\"", "log.format: "),
        (
            "[[accounts]]\nname = \"a\"\nchannel = \"webhook\"\njoin = \"x\"",
            "accounts.a.join: ",
        ),
        ("zzz = 1", "zzz: unknown key; there are public, desk"),
    ];
    for (text, expected) in cases {
        let problems = read(text, &[]).err().unwrap_or_default();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with(expected), "{text}: {problems:?}");
    }
}

#[test]
fn all_problems_are_listed() {
    let problems = read("[public]\na = 1\n[desk]\nb = 1\n[[people]]\n[x]", &[])
        .err()
        .unwrap();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let text = "[store]\nurl = \"sqlite:a.db\"\n[spool]\nmax_bytes = 1\n";
    let environment = [
        ("TRIBUTARY_STORE__URL", "postgres://b"),
        ("TRIBUTARY_SPOOL__MAX_BYTES", "2"),
        ("TRIBUTARY_KEYS__FILES", "[\"c\", \"d\"]"),
        ("TRIBUTARY_EMPLOYEE_DOMAINS", "[\"e.example\"]"),
        ("TRIBUTARY_PORT", "tcp://10.0.0.1:8080"),
        ("OTHER_STORE__URL", "no"),
    ];
    let settings = read(text, &environment).unwrap();
    assert_eq!(settings.store_url(), "postgres://b");
    assert_eq!(settings.spool.max_bytes, 2);
    assert_eq!(settings.keys.files, [Path::new("c"), Path::new("d")]);
    assert_eq!(settings.employee_domains, ["e.example"]);
    let problems = read("", &[("TRIBUTARY_STORE__ULR", "x")]).err().unwrap();
    assert_eq!(problems, ["store.ulr: unknown key; did you mean store.url?"]);
}

#[test]
fn secrets_come_from_files_and_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, " postgres://secret\n").unwrap();
    let path = path.display();
    let text = format!(
        "[store]\nurl_file = \"{path}\"\n[[accounts]]\nname = \"a\"\nchannel = \"c\"\nx_env = \"X\"\n[accounts.deep]\ny_file = \"{path}\"\n"
    );
    let settings = read(&text, &[("X", " x ")]).unwrap();
    assert_eq!(settings.store_url(), "postgres://secret");
    let rest = &settings.accounts[0].rest;
    assert_eq!(rest["x"].as_str(), Some(" x "));
    assert_eq!(rest["deep"]["y"].as_str(), Some("postgres://secret"));
    // A later layer's reference replaces an earlier layer's value, and the other way round.
    let text = "[store]\nurl = \"a\"";
    let file = format!("{path}");
    let settings = read(text, &[("TRIBUTARY_STORE__URL_FILE", file.as_str())]).unwrap();
    assert_eq!(settings.store_url(), "postgres://secret");
    let text = format!("[store]\nurl_file = \"{path}\"");
    let settings = read(&text, &[("TRIBUTARY_STORE__URL", "b")]).unwrap();
    assert_eq!(settings.store_url(), "b");
}

#[test]
fn references_that_lead_nowhere_are_problems() {
    let cases = [
        (
            "[store]\nurl_file = \"/nowhere/x\"",
            "store.url_file: cannot read /nowhere/x: ",
        ),
        (
            "[store]\nurl_env = \"NOWHERE\"",
            "store.url_env: the environment has no NOWHERE",
        ),
        (
            "[store]\nurl = \"a\"\nurl_env = \"X\"",
            "store.url_env: url is set as well; keep one of them",
        ),
        (
            "[[accounts]]\nname = \"a\"\nchannel = \"c\"\npassword_env = \"NOWHERE\"",
            "accounts.a.password_env: the environment has no NOWHERE",
        ),
    ];
    for (text, expected) in cases {
        let problems = read(text, &[("X", "x")]).err().unwrap_or_default();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with(expected), "{text}: {problems:?}");
    }
}

#[test]
fn kafkas_password_is_never_shown() {
    let text = "[bus.kafka]\nsecurity_protocol = \"sasl_ssl\"\npassword_env = \"P\"";
    let settings = read(text, &[("P", "hunter2")]).unwrap();
    assert!(settings.kafka_settings().password.is_some());
    let shown = format!("{:?} {:?}", settings.bus, settings.bus_settings(true));
    assert!(!shown.contains("hunter2"), "{shown}");
}
