use super::*;

/// A rule that is right, with one line more.
fn rule(more: &str) -> String {
    format!(
        "[[rule]]\nkeys = \"a:*\"\nowner = \"team\"\npurpose = \"p\"\nkind = \"data\"\n\
         longest_expiry = \"1h\"\nbiggest = \"1KiB\"\n{more}\n"
    )
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    Rules::read(text).expect_err("it is wrong")
}

#[test]
fn the_example_is_right_and_the_most_specific_rule_counts() {
    let rules = Rules::read(EXAMPLE).expect("the example is right");
    let of = |key: &str| rules.of(key.as_bytes()).map(|(_, rule)| rule.keys.as_str());
    assert_eq!(of("lock:order:42:receipt"), Some("lock:*"));
    assert_eq!(of("feature_flags"), Some("feature_flags"));
    assert_eq!((of("feature_flags2"), of("lock")), (None, None));
    let lock = rules.of(b"lock:1").expect("a rule").1;
    assert_eq!(lock.longest_expiry, Some(Duration::from_secs(600)));
    assert!(lock.remove && lock.stale_after == Some(Duration::from_secs(3_600)));
    let text = ["*", "lock:*", "lock:order:*", "lock:order:1"]
        .map(|keys| rule("").replace("a:*", keys))
        .concat();
    let rules = Rules::read(&text).expect("right");
    let of = |key: &str| rules.of(key.as_bytes()).map(|(_, rule)| rule.keys.as_str());
    assert_eq!(of("lock:order:1"), Some("lock:order:1"));
    assert_eq!(of("lock:order:12"), Some("lock:order:*"));
    assert_eq!((of("lock:x"), of("x")), (Some("lock:*"), Some("*")));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_line() {
    let text = "[[rule]]\nkeys = \"a*b*\"\nowner = \" \"\nkind = \"bag\"\nttl = 5\nbiggest = 10\n\
                [[rule]]\nowner = \"x\"\npurpose = \"y\"\nkind = \"lock\"\nlongest_expiry = \"none\"\n\
                biggest = \"1MB\"\nlimit = 5\nstale = \"remove\"\n";
    let found = problems(text);
    for told in [
        "line 5, rule \"a*b*\": ttl is no field of a rule; there are keys, owner",
        "line 2, rule \"a*b*\": keys: \"a*b*\" has a * that is not at its end",
        "line 3, rule \"a*b*\": owner: is empty",
        "line 1, rule \"a*b*\": purpose: is missing",
        "line 4, rule \"a*b*\": kind: \"bag\" is none of lock, cache, counter, queue, data",
        "line 6, rule \"a*b*\": biggest: must be text in quotes",
        "line 7, rule number 2: keys: is missing",
        "line 11, rule number 2: longest_expiry: a lock must expire",
        "line 12, rule number 2: biggest: \"1MB\" is not a size like 64KiB",
        "line 13, rule number 2: limit: is for kind = \"queue\" only",
        "line 14, rule number 2: stale: needs stale_after",
    ] {
        assert!(found.iter().any(|line| line.starts_with(told)), "{told} in {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (more, told) in [
        ("reason = \"r\"", "reason: goes with longest_expiry = \"none\""),
        ("durable = \"yes\"", "durable: must be true or false"),
        ("longest_idle = \"1h\"", "longest_idle: is for kind = \"queue\" only"),
        ("stale_after = \"1500ms\"", "stale_after: \"1500ms\" is no whole number of seconds"),
        ("stale_after = \"1h\"\nstale = \"delete\"", "stale: \"delete\" is neither"),
    ] {
        let found = problems(&rule(more));
        assert!(found.len() == 1 && found[0].contains(told), "{told} in {found:#?}");
    }
    let queue = rule("stale_after = \"1h\"").replace("\"data\"", "\"queue\"");
    assert!(problems(&queue)[0].contains("a queue itself is never stale"));
    let cache = rule("durable = true").replace("\"data\"", "\"cache\"");
    assert!(problems(&cache)[0].contains("a cache may vanish"));
    let none = rule("").replace("\"1h\"", "\"none\"");
    assert!(problems(&none)[0].contains("reason: is missing; say why"));
}

#[test]
fn what_is_no_list_of_rules_is_refused() {
    assert!(problems("")[0].contains("there is no rule in it"));
    assert!(problems("[rule]\nkeys = \"a\"")[0].contains("two brackets"));
    assert!(problems("[[rules]]\nkeys = \"a\"")[0].starts_with("line 1: \"rules\" is unknown"));
    assert!(problems("rule = [1]")[0].contains("must be a table"));
    let found = problems("[[rule]]\nkeys = \n[[rule]]\nowner = x\n");
    assert!(found[0].starts_with("line 2: ") && found.len() >= 2, "{found:#?}");
    let twice = format!("{}{}", rule(""), rule(""));
    assert!(problems(&twice)[0].contains("line 9, rule \"a:*\": line 1 has a rule of the same"));
}
