//! Programs run on a machine of the tests' own, against what a profile says in words.

use proptest::prelude::*;

use super::*;

/// What the kernel would answer to this call.
fn run(program: &[Instruction], number: u32, architecture: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| -> u32 {
        match offset {
            NUMBER_AT => number,
            ARCHITECTURE_AT => architecture,
            offset => {
                let place = (offset - ARGUMENTS_AT) as usize;
                let bytes = args[place / 8].to_ne_bytes();
                let half = &bytes[place % 8..place % 8 + 4];
                u32::from_ne_bytes(half.try_into().expect("four bytes"))
            }
        }
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let test = match code {
            LOAD => {
                accumulator = word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            RETURN => return k,
            JUMP_ALWAYS => {
                at += k as usize;
                continue;
            }
            JUMP_EQUAL => accumulator == k,
            JUMP_ABOVE => accumulator > k,
            JUMP_AT_LEAST => accumulator >= k,
            other => panic!("an instruction of no kind: {other:#x}"),
        };
        at += usize::from(if test { jt } else { jf });
    }
}

fn call(program: &[Instruction], name: &str, args: [u64; 6]) -> u32 {
    run(program, calls::numbers()[name], ARCHITECTURE, args)
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | 1;

fn word(answer: u32) -> &'static str {
    match answer {
        ALLOW => "allow",
        REFUSE => "refuse",
        UNKNOWN_CALL => "unknown",
        _ => "other",
    }
}

#[test]
fn the_default_profile_allows_a_database_and_refuses_what_reaches_out() {
    let program = |capabilities: &[&str]| {
        compile(&runtime_default(
            &capabilities.iter().copied().collect::<BTreeSet<_>>(),
        ))
        .expect("it compiles")
    };
    let plain = program(&["CHOWN", "SYS_CHROOT"]);
    let admin = program(&["SYS_ADMIN"]);
    let zero = [0; 6];
    for (name, args, plain_says, admin_says) in [
        ("read", zero, "allow", "allow"),
        ("execve", zero, "allow", "allow"),
        ("futex_wait", zero, "allow", "allow"),
        ("shmget", zero, "allow", "allow"),
        ("ptrace", zero, "allow", "allow"),
        ("chroot", zero, "allow", "refuse"),
        ("mount", zero, "refuse", "allow"),
        ("unshare", zero, "refuse", "allow"),
        ("bpf", zero, "refuse", "allow"),
        ("reboot", zero, "refuse", "refuse"),
        ("keyctl", zero, "refuse", "refuse"),
        ("io_uring_setup", zero, "refuse", "refuse"),
        ("kexec_load", zero, "refuse", "refuse"),
        ("clone", [0x11, 0, 0, 0, 0, 0], "allow", "allow"),
        ("clone", [0x1000_0011, 0, 0, 0, 0, 0], "refuse", "allow"),
        ("clone3", zero, "unknown", "allow"),
        ("personality", [0x2_0000, 0, 0, 0, 0, 0], "allow", "allow"),
        ("personality", [0x4_0000, 0, 0, 0, 0, 0], "refuse", "refuse"),
        ("socket", [2, 0, 0, 0, 0, 0], "allow", "allow"),
        ("socket", [38, 0, 0, 0, 0, 0], "refuse", "refuse"),
        ("socket", [39, 0, 0, 0, 0, 0], "allow", "allow"),
        ("socket", [40, 0, 0, 0, 0, 0], "refuse", "refuse"),
        ("socket", [44, 0, 0, 0, 0, 0], "allow", "allow"),
    ] {
        assert_eq!(
            word(call(&plain, name, args)),
            plain_says,
            "{name} {args:?}"
        );
        assert_eq!(
            word(call(&admin, name, args)),
            admin_says,
            "{name} {args:?} as admin"
        );
    }
    assert_eq!(
        word(run(&plain, 9_999, ARCHITECTURE, zero)),
        "unknown",
        "a call of the future"
    );
    assert_eq!(
        word(run(&plain, 3, 0x4000_0003, zero)),
        "unknown",
        "a program of 32 bits"
    );
}

#[test]
fn a_profile_is_read_as_the_specification_has_it() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]},
        {"names": ["mkdirat"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let program = compile(&parse(text).expect("a profile")).expect("it compiles");
    let of = |name, args| call(&program, name, args);
    assert_eq!(
        of("mkdirat", [0; 6]),
        libc::SECCOMP_RET_ERRNO | 13,
        "the first entry counts"
    );
    assert_eq!(
        of("kill", [1, 9, 0, 0, 0, 0]),
        libc::SECCOMP_RET_KILL_PROCESS
    );
    assert_eq!(of("kill", [9, 1, 0, 0, 0, 0]), ALLOW);
    assert_eq!(of("openat", [0; 6]), ALLOW);
}

#[test]
fn what_is_no_profile_is_said_so() {
    for (text, want) in [
        (
            "{}",
            "it is not a seccomp profile: missing field `defaultAction` at line 1 column 2",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
            "it asks for argument 6; a call has the arguments 0 to 5",
        ),
    ] {
        let error = parse(text)
            .and_then(|profile| compile(&profile))
            .expect_err("no profile");
        assert_eq!(error.to_string(), want);
    }
}

fn an_operator() -> impl Strategy<Value = Operator> {
    prop::sample::select(vec![
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Equal,
        Operator::GreaterOrEqual,
        Operator::Greater,
        Operator::MaskedEqual,
    ])
}

/// Numbers near each other, and near the border of 32 bits.
fn a_value() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, 0xffff_fffe_u64..0x1_0000_0002, any::<u64>()]
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let argument = (0_u32..6, a_value(), a_value(), an_operator()).prop_map(
        |(index, value, value_two, op)| Argument {
            index,
            value,
            value_two,
            op,
        },
    );
    let names = prop::collection::vec(
        prop::sample::select(vec!["read", "kill", "openat", "socket"]),
        1..3,
    );
    (names, prop::collection::vec(argument, 0..4), 1_u16..9).prop_map(|(names, args, error)| {
        Entry {
            names: names.into_iter().map(str::to_owned).collect(),
            action: Action::Errno,
            errno_ret: Some(error),
            args,
        }
    })
}

/// What the words of a profile say.
fn said(profile: &Profile, name: &str, args: [u64; 6]) -> u32 {
    let holds = |argument: &Argument| {
        let Argument {
            index,
            value,
            value_two,
            op,
        } = *argument;
        let have = args[index as usize];
        match op {
            Operator::NotEqual => have != value,
            Operator::Less => have < value,
            Operator::LessOrEqual => have <= value,
            Operator::Equal => have == value,
            Operator::GreaterOrEqual => have >= value,
            Operator::Greater => have > value,
            Operator::MaskedEqual => have & value == value_two,
        }
    };
    profile
        .syscalls
        .iter()
        .find(|entry| entry.names.iter().any(|own| own == name) && entry.args.iter().all(holds))
        .map_or(profile.default_action.number(None), |entry| {
            entry.action.number(entry.errno_ret)
        })
}

proptest! {
    #[test]
    fn the_program_says_what_the_profile_says(
        syscalls in prop::collection::vec(an_entry(), 0..5),
        args in prop::array::uniform6(a_value()),
        name in prop::sample::select(vec!["read", "kill", "openat", "socket", "close"]),
    ) {
        let profile = Profile { default_action: Action::Allow, default_errno_ret: None, syscalls };
        let program = compile(&profile).expect("it compiles");
        prop_assert_eq!(call(&program, name, args), said(&profile, name, args));
    }
}
