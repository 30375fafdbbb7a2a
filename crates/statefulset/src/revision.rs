//! ControllerRevisions: which template is current, which one is wanted, their names and hashes, and how many old ones are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::identity;
use crate::json::Json;
use crate::observed::{Observed, Revision, Set};
use crate::replica::Member;
use crate::step::Step;

/// The two revisions that a decision is about; they are the same one when no update is under way.
#[derive(Clone, Debug)]
pub(crate) struct Revisions {
    pub(crate) current: Target,
    pub(crate) update: Target,
    /// `status.collisionCount` from now on.
    pub(crate) collision_count: i32,
    /// Names that a new revision would have had, were they free.
    pub(crate) taken: Vec<Arc<str>>,
    /// What makes the update revision exist, or the newest, where it is not.
    pub(crate) step: Option<Step>,
}

impl Revisions {
    /// No update is under way.
    pub(crate) fn are_one(&self) -> bool {
        Arc::ptr_eq(&self.current.name, &self.update.name) || self.current.name == self.update.name
    }
}

/// A revision that pods are made of.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) template: Json,
}

/// The set's revisions, the oldest first: its own and orphans, as far as the selector matches them.
///
/// upstream: ListControllerRevisions, SortControllerRevisions.
pub(crate) fn history(seen: &Observed) -> Vec<&Arc<Revision>> {
    let set = &seen.set;
    let ours = |revision: &&Arc<Revision>| {
        let free_or_own =
            revision.controller.is_none() || set.controls(revision.controller.as_ref());
        free_or_own && set.selector.matches(&revision.labels)
    };
    let mut history: Vec<_> = seen.revisions.values().filter(ours).collect();
    history.sort_by(|a, b| (a.number, a.created, &a.name).cmp(&(b.number, b.created, &b.name)));
    history
}

/// Chooses the current and the update revision and what is needed for the latter to exist and to be the newest.
///
/// upstream: getStatefulSetRevisions.
pub(crate) fn choose(seen: &Observed, history: &[&Arc<Revision>]) -> Revisions {
    let set = &seen.set;
    let New {
        update,
        collision_count,
        taken,
        step,
    } = match wanted(seen, history) {
        Wanted::Newest(newest) => New::nothing(set, newest),
        Wanted::Again(older, to) => {
            let (revision, uid, from) = (older.name.clone(), older.uid.clone(), older.number);
            let renumber = Step::RenumberRevision {
                revision,
                uid,
                from,
                to,
            };
            New {
                step: Some(renumber),
                ..New::nothing(set, older)
            }
        }
        Wanted::New(number) => create(seen, number),
    };
    let named = |it: &&&Arc<Revision>| set.status.current_revision.as_ref() == Some(&it.name);
    let current = history.iter().find(named).map(|it| target(set, it));
    Revisions {
        current: current.unwrap_or_else(|| update.clone()),
        update,
        collision_count,
        taken,
        step,
    }
}

/// What choosing the update revision came to.
struct New {
    update: Target,
    collision_count: i32,
    taken: Vec<Arc<str>>,
    step: Option<Step>,
}

impl New {
    /// Nothing is new: this revision is there.
    fn nothing(set: &Set, revision: &Revision) -> New {
        New {
            update: target(set, revision),
            collision_count: set.status.collision_count.unwrap_or_default(),
            taken: Vec::new(),
            step: None,
        }
    }
}

enum Wanted<'a> {
    /// The newest revision is the template.
    Newest(&'a Revision),
    /// An older one is: it gets this number.
    Again(&'a Revision, i64),
    /// None is: a new one with this number.
    New(i64),
}

fn wanted<'a>(seen: &Observed, history: &[&'a Arc<Revision>]) -> Wanted<'a> {
    let set = &seen.set;
    let Some(newest) = history.last() else {
        return Wanted::New(1);
    };
    let number = newest.number.saturating_add(1);
    let hash = numeric(&hash_of(
        &set.data_bytes,
        set.status.collision_count.unwrap_or_default(),
    ));
    let equal = history
        .iter()
        .rfind(|revision| revision.data == set.data && agree(revision.numeric_hash(), hash));
    match equal {
        Some(equal)
            if equal.data == newest.data && agree(equal.numeric_hash(), newest.numeric_hash()) =>
        {
            Wanted::Newest(newest)
        }
        Some(older) => Wanted::Again(older, number),
        None if means_the_same(set, newest) => Wanted::Newest(newest),
        None => Wanted::New(number),
    }
}

/// upstream: EqualRevision compares hash labels before data, but only where both are numbers, which encoded hashes hardly ever are.
fn agree(a: Option<i32>, b: Option<i32>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    }
}

fn numeric(hash: &str) -> Option<i32> {
    hash.parse().ok()
}

/// The newest revision, with today's defaults filled in, is the template: an API server that learned a new default must not
/// roll every set. upstream: gate StatefulSetSemanticRevisionComparison, after kubernetes#134773.
fn means_the_same(set: &Set, newest: &Revision) -> bool {
    let Some(mut template) = template_in(&newest.data) else {
        return false;
    };
    drop_null_creation_time(&mut template);
    stead_schema::set_pod_template_defaults(&mut template);
    bytes_of(&data_of(&template)) == *set.data_bytes
}

/// Finds a name for the new revision. upstream: CreateControllerRevision, which learns of a taken name by AlreadyExists.
///
/// A name taken by equal data is that revision (ours in a cache that lagged, or a stranger's: upstream asks no more). Taken by other
/// data, the collision count goes up and the next name is tried; the hash label stays that of the first.
fn create(seen: &Observed, number: i64) -> New {
    let set = &seen.set;
    let mut collision_count = set.status.collision_count.unwrap_or_default();
    let first = hash_of(&set.data_bytes, collision_count);
    let mut taken = Vec::new();
    let mut name = identity::revision_name(&set.name, &first);
    while let Some(there) = seen.revisions.get(&name) {
        taken.push(name);
        if there.data == set.data {
            let update = target(set, there);
            return New {
                update,
                collision_count,
                taken,
                step: None,
            };
        }
        collision_count = collision_count.wrapping_add(1);
        let hash = hash_of(&set.data_bytes, collision_count);
        name = identity::revision_name(&set.name, &hash);
    }
    let step = Step::CreateRevision {
        revision: name.clone(),
        hash: first.into(),
        number,
    };
    let update = Target {
        name,
        template: set.template.clone(),
    };
    New {
        update,
        collision_count,
        taken,
        step: Some(step),
    }
}

/// Deletes what is beyond the history limit, the oldest first; never what is current, wanted or named by a pod.
///
/// upstream: truncateHistory.
pub(crate) fn truncate(
    seen: &Observed,
    history: &[&Arc<Revision>],
    revisions: &Revisions,
    claimed: &[Member<'_>],
) -> Vec<Step> {
    let Some(limit) = seen.set.history_limit else {
        return Vec::new();
    };
    if history.len() <= usize::try_from(limit).unwrap_or(usize::MAX) {
        return Vec::new();
    }
    let others = claimed.iter().filter(|it| !it.current && !it.updated);
    let mut live: BTreeSet<&str> = others.filter_map(|it| it.pod.revision()).collect();
    live.insert(&revisions.current.name);
    live.insert(&revisions.update.name);
    let old: Vec<_> = history
        .iter()
        .filter(|revision| !live.contains(&*revision.name))
        .collect();
    let surplus = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    let delete = |revision: &&&Arc<Revision>| Step::DeleteRevision {
        revision: revision.name.clone(),
        uid: revision.uid.clone(),
        limit,
    };
    old.iter()
        .take(surplus)
        .copied()
        .map(|revision| delete(&revision))
        .collect()
}

fn target(set: &Set, revision: &Revision) -> Target {
    // upstream applies the data as a patch to the set: data without a template leaves the set's own.
    let template = template_in(&revision.data).map_or_else(|| set.template.clone(), Json::new);
    Target {
        name: revision.name.clone(),
        template,
    }
}

/// The template in a revision's data, without the patch directive.
fn template_in(data: &Value) -> Option<Value> {
    let mut template = data.get("spec")?.get("template")?.as_object()?.clone();
    template.remove("$patch");
    Some(Value::Object(template))
}

/// A revision's `data` for a template. upstream: getPatch.
pub(crate) fn data_of(template: &Value) -> Value {
    let mut template = template.clone();
    drop_null_creation_time(&mut template);
    let mut template: Map<String, Value> = template.as_object().cloned().unwrap_or_default();
    template.insert("$patch".into(), Value::from("replace"));
    json!({"spec": {"template": template}})
}

/// Servers up to 1.33 write `creationTimestamp: null` into templates; a newer typed client never sees it.
fn drop_null_creation_time(template: &mut Value) {
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata
            .get("creationTimestamp")
            .is_some_and(Value::is_null)
    {
        metadata.remove("creationTimestamp");
    }
}

/// The hash in a revision's name and label. upstream: HashControllerRevision, rand.SafeEncodeString.
pub(crate) fn hash_of(data: &str, collision_count: i32) -> String {
    const OFFSET: u32 = 2_166_136_261;
    const PRIME: u32 = 16_777_619;
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let count = collision_count.to_string();
    let fnv1 = |hash: u32, byte: u8| hash.wrapping_mul(PRIME) ^ u32::from(byte);
    let sum = data.bytes().chain(count.bytes()).fold(OFFSET, fnv1);
    let letter = |digit: u8| {
        ALPHABET
            .get(usize::from(digit % 27))
            .copied()
            .map_or('b', char::from)
    };
    sum.to_string().bytes().map(letter).collect()
}

/// JSON as Go's `json.Marshal` writes what `json.Unmarshal` read into maps: sorted keys, no space, HTML characters escaped,
/// numbers by way of a float64.
pub(crate) fn bytes_of(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&go_number(number)),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => write_sequence(out, ['[', ']'], items, write),
        Value::Object(fields) => write_sequence(out, ['{', '}'], fields, |(key, value), out| {
            write_text(key, out);
            out.push(':');
            write(value, out);
        }),
    }
}

fn write_sequence<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    one: impl Fn(T, &mut String),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        one(item, out);
    }
    out.push(close);
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)))
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// Go reads every number as a float64 and writes the shortest decimal that reads back as it, with an exponent below 1e-6 and from 1e21.
fn go_number(number: &serde_json::Number) -> String {
    const EXACT_MAX: u64 = 1 << 53;
    if let Some(whole) = number
        .as_i64()
        .filter(|whole| whole.unsigned_abs() <= EXACT_MAX)
    {
        return whole.to_string();
    }
    let float = number.as_f64().unwrap_or_default();
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        // Go writes the sign of an exponent, and drops a leading zero of negative ones as we do.
        return if text.contains("e-") {
            text
        } else {
            text.replace('e', "e+")
        };
    }
    format!("{float}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// upstream's own test data: a 457-byte and a 432-byte patch hash to these sums; here by way of the encoding alone.
    #[test]
    fn a_sum_is_encoded_letter_by_letter() {
        // FNV-1 of "" followed by "0" is known from the algorithm's definition.
        assert_eq!(
            hash_of("", 0),
            encode(0x0100_0193_u32.wrapping_mul(2_166_136_261) ^ 0x30)
        );
    }

    fn encode(sum: u32) -> String {
        let alphabet: Vec<char> = "bcdfghjklmnpqrstvwxz2456789".chars().collect();
        sum.to_string()
            .bytes()
            .map(|digit| alphabet[usize::from(digit) % 27])
            .collect()
    }

    #[test]
    fn upstreams_published_sums_have_upstreams_published_names() {
        assert_eq!(encode(733_928_534), "c77f6d978");
        assert_eq!(encode(3_325_552_446), "776999688b");
    }

    #[test]
    fn strings_and_numbers_are_written_as_go_writes_them() {
        let value = json!({"b": "a<b>&c\u{2028}\u{1}\"\\\n", "a": [1, -2, 9_007_199_254_740_993_i64, 1.5, null, true], "z": {}});
        assert_eq!(
            bytes_of(&value),
            r#"{"a":[1,-2,9007199254740992,1.5,null,true],"b":"a\u003cb\u003e\u0026c\u2028\u0001\"\\\n","z":{}}"#
        );
        assert_eq!(
            bytes_of(&json!([1e21, 1e-7, 1e20])),
            "[1e+21,1e-7,100000000000000000000]"
        );
    }
}
