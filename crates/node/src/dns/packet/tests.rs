//! Bytes in, bytes out: refusals, sizes, and no panic whatever comes.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::{Question, Refusal, Transport, hear, read};
use crate::dns::zone::Answer;

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message
        .queries
        .push(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

fn with_edns(mut message: Message, octets: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(octets);
    edns.set_version(version);
    message.edns = Some(edns);
    message
}

/// What a changed question is refused with; `None` is silence.
fn check_refused(change: impl Fn(&mut Message), expected: Option<ResponseCode>) {
    let mut message = query("a.example.", RecordType::A);
    change(&mut message);
    let refusal = read(&message.to_vec().unwrap(), Transport::Udp).unwrap_err();
    let code = match &refusal {
        Refusal::Silence => None,
        Refusal::Reply(bytes) => {
            let reply = Message::from_vec(bytes).unwrap();
            assert_eq!(
                (reply.metadata.id, reply.metadata.message_type),
                (7, MessageType::Response)
            );
            Some(reply.metadata.response_code)
        }
    };
    // By number: BADVERS and BADSIG are both 16.
    assert_eq!(code.map(u16::from), expected.map(u16::from));
}

#[test]
fn what_is_no_question_of_ours_is_refused() {
    check_refused(|it| it.metadata.message_type = MessageType::Response, None);
    check_refused(
        |it| it.metadata.op_code = OpCode::Update,
        Some(ResponseCode::NotImp),
    );
    check_refused(|it| it.queries.clear(), Some(ResponseCode::FormErr));
    check_refused(
        |it| it.queries.push(it.queries[0].clone()),
        Some(ResponseCode::FormErr),
    );
    check_refused(
        |it| it.queries[0].query_class = DNSClass::CH,
        Some(ResponseCode::Refused),
    );
    check_refused(
        |it| it.queries[0].query_type = RecordType::AXFR,
        Some(ResponseCode::Refused),
    );
    check_refused(
        |it| *it = with_edns(it.clone(), 1232, 1),
        Some(ResponseCode::BADVERS),
    );
}

#[test]
fn a_cut_packet_is_malformed_and_less_than_a_header_is_nothing() {
    let bytes = query("a.example.", RecordType::A).to_vec().unwrap();
    for end in 0..bytes.len() {
        match read(&bytes[..end], Transport::Udp).unwrap_err() {
            Refusal::Silence => assert!(end < 12, "{end}"),
            Refusal::Reply(reply) => {
                assert!(end >= 12, "{end}");
                assert_eq!(
                    Message::from_vec(&reply).unwrap().metadata.response_code,
                    ResponseCode::FormErr
                );
            }
        }
    }
}

/// An answer of `count` addresses and as many additional ones, for this question.
fn answered(message: &Message, transport: Transport, count: u32) -> (Message, usize) {
    let question = read(&message.to_vec().unwrap(), transport).unwrap();
    let record = |n: u32| {
        Record::from_rdata(
            question.name().clone(),
            5,
            RData::A(A((0x0a00_0000 + n).into())),
        )
    };
    let bytes = question.answer(Answer {
        code: ResponseCode::NoError,
        answers: (0..count).map(record).collect(),
        authorities: vec![],
        additionals: (0..count).map(record).collect(),
        follow: None,
    });
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

#[test]
fn an_answer_never_exceeds_what_the_client_takes() {
    let plain = query("a.example.", RecordType::A);
    let wide = with_edns(plain.clone(), 4_096, 0);
    let tiny = with_edns(plain.clone(), 1, 0);
    // message, transport, addresses -> octets at most, additional ones kept, truncated
    for (message, transport, count, octets_max, additionals_kept, truncated) in [
        (&plain, Transport::Udp, 3, 512, true, false),
        (&plain, Transport::Udp, 20, 512, false, false),
        (&plain, Transport::Udp, 100, 512, false, true),
        (&tiny, Transport::Udp, 100, 512, false, true),
        (&wide, Transport::Udp, 30, 1_232, true, false),
        (&wide, Transport::Udp, 1_000, 1_232, false, true),
        (&plain, Transport::Tcp, 1_000, 65_535, true, false),
        (&plain, Transport::Tcp, 10_000, 65_535, false, true),
    ] {
        let (answer, octets) = answered(message, transport, count);
        let case = format!("{count} over {transport:?}");
        assert!(octets <= octets_max, "{case}: {octets}");
        assert_eq!(!answer.additionals.is_empty(), additionals_kept, "{case}");
        assert_eq!(answer.metadata.truncation, truncated, "{case}");
        assert!(!answer.answers.is_empty(), "{case}");
        assert_eq!(answer.edns.is_some(), message.edns.is_some(), "{case}");
    }
}

#[test]
fn only_the_answer_to_the_very_question_is_heard() {
    let asked = query("a.example.", RecordType::A);
    let mut reply = asked.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = ResponseCode::NXDomain;
    let heard = |reply: &Message| hear(&reply.to_vec().unwrap(), 7, &asked.queries[0]);
    assert_eq!(heard(&reply).unwrap().code, ResponseCode::NXDomain);
    let changes: [fn(&mut Message); 5] = [
        |it| it.metadata.id = 8,
        |it| it.metadata.message_type = MessageType::Query,
        |it| it.queries[0].name = Name::from_ascii("b.example.").unwrap(),
        |it| it.queries[0].query_type = RecordType::AAAA,
        |it| it.queries.clear(),
    ];
    for change in changes {
        let mut other = reply.clone();
        change(&mut other);
        assert_eq!(heard(&other), None, "{other}");
    }
}

/// Whatever is read, its reply is one to it: its id, the mark of a response, no more octets than allowed.
fn check_reply(bytes: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    let (reply, octets_max) = match read(bytes, transport) {
        Ok(question) => (
            question.refuse(ResponseCode::ServFail),
            reflects(&question)?,
        ),
        Err(Refusal::Reply(reply)) => (reply, 512),
        Err(Refusal::Silence) => return Ok(()),
    };
    prop_assert!(reply.len() >= 12 && reply.len() <= octets_max);
    prop_assert_eq!(&reply[..2], &bytes[..2]);
    prop_assert_eq!(reply[2] & 0x80, 0x80);
    Ok(())
}

/// Forwarded, the question is still the same one.
fn reflects(question: &Question) -> Result<usize, TestCaseError> {
    let mut echo = question.forwarded(99);
    echo[2] |= 0x80;
    prop_assert!(hear(&echo, 99, &question.query).is_some());
    let relayed = question.relayed(echo);
    prop_assert!(relayed.len() <= usize::from(question.octets_max()));
    Ok(usize::from(question.octets_max()))
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), tcp: bool) {
        check_reply(&bytes, if tcp { Transport::Tcp } else { Transport::Udp })?;
    }

    #[test]
    fn broken_questions_never_panic(
        name in "([a-zA-Z0-9_]{1,63}\\.){1,3}",
        option in proptest::collection::vec(any::<u8>(), 0..40),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        edns: bool,
    ) {
        let message = query(&name, RecordType::SRV);
        let mut bytes = if edns { with_edns(message, 1_000, 0) } else { message }.to_vec().unwrap();
        if edns {
            // The OPT record is last and empty: now it has this data.
            let length = bytes.len() - 1;
            bytes[length] = u8::try_from(option.len()).unwrap();
            bytes.extend(option);
        }
        for (place, octet) in changes {
            let place = place.index(bytes.len());
            bytes[place] = octet;
        }
        check_reply(&bytes, Transport::Udp)?;
    }
}
