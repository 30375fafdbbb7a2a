//! Reads a story line by line, changes the world as it says, and writes the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::SignedDuration;
use serde_json::{Value, json};
use stead_statefulset::{Action, Decision, EventType, Mark, Observed, Step, check, decide};

use crate::world::World;

/// Rounds after which a set that still moves is said to move forever.
const ROUNDS_MAX: usize = 60;
/// Steps of one decision that are told one by one.
const STEPS_SHOWN_MAX: usize = 20;

/// A story with its answers as they are.
pub(crate) struct Told {
    pub(crate) text: String,
    pub(crate) steps: BTreeSet<&'static str>,
    pub(crate) blockers: BTreeSet<&'static str>,
}

struct Teller {
    world: World,
    letters: BTreeSet<String>,
    told: Told,
}

/// A patch that names `finalizers` would write back a list that another may have changed meanwhile (kr#2342).
fn wipes_finalizers(seen: &Observed, decision: &Decision) -> bool {
    decision
        .plan
        .steps()
        .any(|step| match step.call(&seen.set).action {
            Action::Patch { patch, .. } => patch.to_string().contains("finalizers"),
            Action::Create { .. } | Action::Delete { .. } => false,
        })
}

/// Tells the story; `Err` names the line that cannot be understood.
pub(crate) fn tell(text: &str) -> Result<Told, String> {
    let mut teller = Teller {
        world: World::new(),
        letters: BTreeSet::new(),
        told: Told {
            text: String::new(),
            steps: BTreeSet::new(),
            blockers: BTreeSet::new(),
        },
    };
    let mut answering = false;
    let mut question = None;
    for (index, line) in text.lines().enumerate() {
        if line == "----" {
            let asked = question
                .take()
                .ok_or_else(|| format!("line {}: no question before ----", index + 1))?;
            teller.say("----");
            teller.answer(asked)?;
            answering = true;
            continue;
        }
        if answering && !line.is_empty() {
            continue;
        }
        answering = false;
        teller.say(line);
        if let Some(asked) = teller
            .read(line)
            .map_err(|complaint| format!("line {}: {line}: {complaint}", index + 1))?
        {
            question = Some(asked);
        }
    }
    match question {
        None => Ok(teller.told),
        Some(_) => Err("the last question has no ---- after it".into()),
    }
}

enum Question {
    /// What is decided.
    Decide,
    /// The same, and it is carried out.
    Do,
    /// Decide, carry out, let the kubelet work, until nothing is left to do.
    Run,
}

impl Teller {
    fn say(&mut self, line: &str) {
        self.told.text.push_str(line);
        self.told.text.push('\n');
    }

    fn read(&mut self, line: &str) -> Result<Option<Question>, String> {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        let Some(verb) = words.next() else {
            return Ok(None);
        };
        let words: Vec<&str> = words.collect();
        match verb {
            "set" => self.set(&words)?,
            "pod" => self.pod(&words)?,
            "claim" => self.claim(&words)?,
            "revision" => self.revision(&words)?,
            "gone" => self.gone(&words)?,
            "clock" => self.clock(&words)?,
            "cache" => self.cache(&words)?,
            "kubelet" => self.world.tick(),
            "decide" => return Ok(Some(Question::Decide)),
            "do" => return Ok(Some(Question::Do)),
            "run" => return Ok(Some(Question::Run)),
            other => return Err(format!("no word {other:?}")),
        }
        Ok(None)
    }

    // --- what a line changes ---

    fn set(&mut self, words: &[&str]) -> Result<(), String> {
        let mut words = words.iter();
        if self.world.set.is_null() {
            let name = words.next().ok_or("a set needs a name")?;
            self.world.set = json!({
                "apiVersion": "apps/v1",
                "metadata": {"name": name, "namespace": "default", "uid": "uid-set", "resourceVersion": "1", "generation": 1},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}},
                "status": {},
            });
            self.set_template("A");
        } else {
            self.world.set["metadata"]["generation"] = json!(
                self.world.set["metadata"]["generation"]
                    .as_i64()
                    .unwrap_or(0)
                    + 1
            );
        }
        let name = self.world.set["metadata"]["name"].clone();
        for word in words.filter(|word| name != **word) {
            self.set_word(word)?;
        }
        Ok(())
    }

    fn set_template(&mut self, letter: &str) {
        self.world.set["spec"]["template"] = World::template(letter);
        self.letters.insert(letter.to_owned());
    }

    fn letter(&mut self, letter: &str) -> String {
        self.letters.insert(letter.to_owned());
        self.world.ensure_revision(letter)
    }

    fn set_word(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "template" => self.set_template(value),
            "current" => self.world.set["status"]["currentRevision"] = json!(self.letter(value)),
            "update" => self.world.set["status"]["updateRevision"] = json!(self.letter(value)),
            "currentReplicas" => {
                self.world.set["status"]["currentReplicas"] = json!(number(value)?)
            }
            "collisions" => self.world.set["status"]["collisionCount"] = json!(number(value)?),
            "condition" => {
                self.world.set["status"]["conditions"] = json!([{"type": value, "status": "True"}])
            }
            "deleting" => {
                self.world.set["metadata"]["deletionTimestamp"] = json!(self.world.now.to_string())
            }
            "annotation" => self.world.set["metadata"]["annotations"] = json!({"note": value}),
            "uid" => self.world.set["metadata"]["uid"] = json!(value),
            "api" => self.world.set["apiVersion"] = json!(value),
            "selector" if value.is_empty() => self.world.set["spec"]["selector"] = json!({}),
            "selector" => {
                self.world.set["spec"]["selector"] = json!({"matchLabels": {"app": value}})
            }
            "replicas" => self.world.set["spec"]["replicas"] = json!(number(value)?),
            "policy" => self.world.set["spec"]["podManagementPolicy"] = json!(value),
            "start" => self.world.set["spec"]["ordinals"] = json!({"start": number(value)?}),
            "service" => self.world.set["spec"]["serviceName"] = json!(value),
            "minReadySeconds" => self.world.set["spec"]["minReadySeconds"] = json!(number(value)?),
            "history" => self.world.set["spec"]["revisionHistoryLimit"] = json!(number(value)?),
            "claims" => {
                self.world.set["spec"]["volumeClaimTemplates"] =
                    value.split(',').map(claim_template).collect()
            }
            "whenDeleted" | "whenScaled" => {
                self.world.set["spec"]["persistentVolumeClaimRetentionPolicy"][key] = json!(value)
            }
            "strategy" => self.world.set["spec"]["updateStrategy"] = json!({"type": value}),
            "partition" | "maxUnavailable" => self.rolling(key, value),
            other => return Err(format!("a set has no {other:?}")),
        }
        Ok(())
    }

    fn rolling(&mut self, key: &str, value: &str) {
        let strategy = &mut self.world.set["spec"]["updateStrategy"];
        strategy["type"] = json!("RollingUpdate");
        strategy["rollingUpdate"][key] =
            number(value).map_or_else(|_| json!(value), |number| json!(number));
    }

    fn pod(&mut self, words: &[&str]) -> Result<(), String> {
        let (name, words) = words.split_first().ok_or("a pod needs a name")?;
        let letter = words
            .iter()
            .find_map(|word| word.strip_prefix("revision="))
            .unwrap_or("A");
        self.letters.insert(letter.to_owned());
        if !self.world.pods.contains_key(*name) {
            self.world.ensure_pod(name, letter);
            self.world.report(name, "Running", None);
        }
        for word in words {
            self.pod_word(name, word)?;
        }
        Ok(())
    }

    fn pod_word(&mut self, name: &str, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let now = self.world.now.to_string();
        let owners = self.owners(value);
        match key {
            "revision" => {}
            "ready" => self.world.report(
                name,
                "Running",
                Some(if value.is_empty() {
                    SignedDuration::from_hours(1)
                } else {
                    seconds(value)?
                }),
            ),
            "running" => self.world.report(name, "Running", None),
            "pending" => self.world.report(name, "Pending", None),
            "failed" => self.world.report(name, "Failed", None),
            "succeeded" => self.world.report(name, "Succeeded", None),
            "unknown" => self.world.report(name, "Unknown", None),
            "unreported" => self.world.report(name, "", None),
            "terminating" => self.pod_mut(name)["metadata"]["deletionTimestamp"] = json!(now),
            "owner" => self.pod_mut(name)["metadata"]["ownerReferences"] = owners,
            "app" => self.pod_mut(name)["metadata"]["labels"]["app"] = json!(value),
            "unlabelled" => {
                self.pod_mut(name)["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] =
                    Value::Null
            }
            "volumes" => {
                self.pod_mut(name)["spec"]["volumes"] = json!([{"name": value, "emptyDir": {}}])
            }
            "malformed" => self.pod_mut(name)["status"]["phase"] = json!(7),
            other => return Err(format!("a pod has no {other:?}")),
        }
        if self.world.pods[name]["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"]
            .is_null()
        {
            let labels = self.pod_mut(name)["metadata"]["labels"].as_object_mut();
            labels.map(|labels| labels.remove("statefulset.kubernetes.io/pod-name"));
        }
        Ok(())
    }

    fn pod_mut(&mut self, name: &str) -> &mut Value {
        self.world
            .pods
            .get_mut(name)
            .expect("the pod of this line is there")
    }

    fn claim(&mut self, words: &[&str]) -> Result<(), String> {
        let (name, words) = words.split_first().ok_or("a claim needs a name")?;
        self.world.ensure_claim(name);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let (now, owners) = (self.world.now.to_string(), self.owners(value));
            let claim = self.world.ensure_claim(name);
            match key {
                "terminating" => claim["metadata"]["deletionTimestamp"] = json!(now),
                "owner" => claim["metadata"]["ownerReferences"] = owners,
                other => return Err(format!("a claim has no {other:?}")),
            }
        }
        Ok(())
    }

    /// `none`, `set`, `old-set`, `pod/NAME`, `old-pod/NAME` (an earlier pod of the name), or `KIND/NAME`, a controller of another kind;
    /// several with commas.
    fn owners(&self, words: &str) -> Value {
        words
            .split(',')
            .filter(|word| !word.is_empty() && *word != "none")
            .map(|word| self.owner(word))
            .collect()
    }

    fn owner(&self, word: &str) -> Value {
        let mut set = self.world.set_reference();
        match word.split_once('/') {
            None if word == "old-set" => {
                set["uid"] = json!("uid-old-set");
                set
            }
            None if word == "weak-set" => {
                set["controller"] = json!(false);
                set
            }
            None => set,
            Some(("pod", name)) => {
                let uid = self
                    .world
                    .pods
                    .get(name)
                    .map_or(Value::Null, |pod| pod["metadata"]["uid"].clone());
                stead_statefulset::identity::pod_reference(name, uid.as_str().unwrap_or_default())
            }
            Some(("old-pod", name)) => {
                stead_statefulset::identity::pod_reference(name, "uid-old-pod")
            }
            Some((kind, name)) => {
                json!({"apiVersion": "example.com/v1", "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true})
            }
        }
    }

    fn revision(&mut self, words: &[&str]) -> Result<(), String> {
        let (letter, words) = words.split_first().ok_or("a revision needs a letter")?;
        let name = self.letter(letter);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let owners = self.owners(value);
            let Some(revision) = self.world.revisions.get_mut(&name) else {
                return Err("no such revision".into());
            };
            match key {
                "number" => revision["revision"] = json!(number(value)?),
                "owner" => revision["metadata"]["ownerReferences"] = owners,
                "app" => revision["metadata"]["labels"]["app"] = json!(value),
                // A server that has since learned a default: the data lacks what the template has, but means the same.
                "undefaulted" => {
                    let spec = revision["data"]["spec"]["template"]["spec"].as_object_mut();
                    spec.map(|spec| spec.remove("dnsPolicy"));
                }
                // The name is there, but with the data of another letter.
                "holds" => {
                    revision["data"]["spec"]["template"]["spec"]["containers"][0]["image"] =
                        json!(format!("app:{value}"))
                }
                other => return Err(format!("a revision has no {other:?}")),
            }
        }
        Ok(())
    }

    fn gone(&mut self, words: &[&str]) -> Result<(), String> {
        for word in words {
            let there = [&mut self.world.pods, &mut self.world.claims]
                .into_iter()
                .filter_map(|objects| objects.remove(*word))
                .count();
            if there == 0 {
                return Err(format!("there is no {word}"));
            }
        }
        Ok(())
    }

    fn clock(&mut self, words: &[&str]) -> Result<(), String> {
        let [word] = words else {
            return Err("the clock moves by one duration, as in: clock +10s".into());
        };
        self.world.now += seconds(word.trim_start_matches('+'))?;
        Ok(())
    }

    /// `cache pods behind`, `cache fresh`.
    fn cache(&mut self, words: &[&str]) -> Result<(), String> {
        let behind = Mark {
            wrote: 120,
            seen: 110,
        };
        match words {
            ["fresh"] => self.world.freshness = Default::default(),
            ["sets", "behind"] => self.world.freshness.set = behind,
            ["pods", "behind"] => self.world.freshness.pods = behind,
            ["claims", "behind"] => self.world.freshness.claims = behind,
            ["revisions", "behind"] => self.world.freshness.revisions = behind,
            _ => {
                return Err(
                    "a cache is fresh, or sets, pods, claims or revisions are behind".into(),
                );
            }
        }
        Ok(())
    }

    // --- what is answered ---

    fn answer(&mut self, question: Question) -> Result<(), String> {
        match question {
            Question::Decide => {
                let (_, decision) = self.decide();
                self.say_decision(&decision);
            }
            Question::Do => {
                let (seen, decision) = self.decide();
                self.say_decision(&decision);
                self.world.carry_out(&seen, &decision);
            }
            Question::Run => self.run(),
        }
        Ok(())
    }

    fn decide(&mut self) -> (Observed, Decision) {
        let seen = self.world.observed();
        let decision = decide(&seen);
        assert_eq!(
            check::all(&seen, &decision),
            [],
            "an invariant is broken, after\n{}",
            self.told.text
        );
        assert!(
            !wipes_finalizers(&seen, &decision),
            "a patch names finalizers, after\n{}",
            self.told.text
        );
        self.told
            .steps
            .extend(decision.plan.steps().map(Step::reason));
        self.told
            .blockers
            .extend(decision.blocked.iter().map(|blocker| blocker.reason()));
        (seen, decision)
    }

    fn say_decision(&mut self, decision: &Decision) {
        let mut text = String::new();
        self.say_steps(decision, &mut text);
        for event in decision
            .events
            .iter()
            .filter(|event| event.event_type == EventType::Warning)
        {
            let _ = writeln!(text, "event {}: {}", event.reason, event.message);
        }
        for blocker in &decision.blocked {
            let _ = writeln!(text, "blocked {blocker}");
        }
        let status = &decision.status;
        let revision =
            |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
        let written = decision
            .plan
            .steps()
            .any(|step| matches!(step, Step::WriteStatus { .. }));
        let _ = writeln!(
            text,
            "{}status replicas={} ready={} available={} current={}@{} updated={}@{}",
            if written { "write " } else { "" },
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
            status.current_replicas,
            revision(&status.current_revision),
            status.updated_replicas,
            revision(&status.update_revision),
        );
        if let Some(at) = decision.recheck_at {
            let _ = writeln!(
                text,
                "recheck in {} s",
                at.duration_since(self.world.now).as_secs()
            );
        }
        let text = self.with_letters(&text);
        self.told.text.push_str(&text);
    }

    /// One line a step, but for the status; of very many the first and the last.
    fn say_steps(&self, decision: &Decision, text: &mut String) {
        let steps: Vec<_> = decision
            .plan
            .steps()
            .filter(|step| !matches!(step, Step::WriteStatus { .. }))
            .collect();
        for (index, step) in steps.iter().enumerate() {
            if steps.len() <= STEPS_SHOWN_MAX || index < 3 || index + 1 == steps.len() {
                let _ = writeln!(text, "{step}");
            } else if index == 3 {
                let _ = writeln!(text, "... {} more steps ...", steps.len() - 4);
            }
        }
    }

    fn run(&mut self) {
        for round in 1..=ROUNDS_MAX {
            let (seen, decision) = self.decide();
            let mut text = String::new();
            self.say_steps(&decision, &mut text);
            self.told.text.push_str(&self.with_letters(&text));
            let before = (self.world.pods.clone(), self.world.claims.clone());
            self.world.carry_out(&seen, &decision);
            self.world.tick();
            let moved = before != (self.world.pods.clone(), self.world.claims.clone());
            if let Some(at) = decision.recheck_at.filter(|_| !moved) {
                self.world.now = at;
                continue;
            }
            if decision.plan.steps().next().is_none() && !moved {
                self.say_decision(&decision);
                return;
            }
            assert!(
                round < ROUNDS_MAX,
                "still moving after {round} rounds:\n{}",
                self.told.text
            );
        }
    }

    /// Names of revisions as their letters.
    fn with_letters(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let names: BTreeMap<String, &String> = self
            .letters
            .iter()
            .map(|letter| (self.world.revision_name(letter), letter))
            .collect();
        for (name, letter) in names {
            text = text.replace(&name, letter);
        }
        text
    }
}

fn claim_template(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

fn number(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}

fn seconds(text: &str) -> Result<SignedDuration, String> {
    let digits = text
        .strip_suffix('s')
        .ok_or_else(|| format!("{text:?} is not a time like 10s"))?;
    number(digits).map(SignedDuration::from_secs)
}
