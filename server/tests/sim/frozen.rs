//! Artifacts: what was answered is found until it is deleted, by whoever has it, and by nobody else.

use std::collections::BTreeMap;

use hearth_providers::Uid;

use crate::checker::Open;
use crate::history::{Answer, Ask, SeenArtifact, Who};

/// The uid that no VM has.
pub(crate) const fn nobody() -> Uid {
    Uid::from_random([0; 16])
}

#[derive(Debug)]
struct Artifact {
    who: Who,
    id: String,
    /// Deletions that were asked for and not refused.
    deletions: u32,
    is_deleted: bool,
}

impl Artifact {
    const fn is_surely_there(&self) -> bool {
        self.deletions == 0
    }
}

/// Every artifact that was answered.
#[derive(Default)]
pub(crate) struct Artifacts {
    known: BTreeMap<Uid, Artifact>,
    /// As the operator was told last.
    listed: Vec<SeenArtifact>,
}

impl Artifacts {
    pub(crate) fn asked(&mut self, ask: &Ask) {
        if let Ask::DeleteArtifact { uid } = ask {
            self.known.get_mut(uid).into_iter().for_each(|artifact| artifact.deletions += 1);
        }
    }

    pub(crate) fn answered(&mut self, call: &Open, answer: &Answer) -> Result<(), String> {
        match (&call.ask, answer) {
            (Ask::Freeze { artifact_id, .. }, Answer::Frozen(seen)) => {
                if artifact_id.as_ref().is_some_and(|wanted| *wanted != seen.id) {
                    return Err(format!("{seen:?} is called otherwise than was asked for"));
                }
                let SeenArtifact { id, uid, .. } = seen.clone();
                let fresh = Artifact { who: call.who, id, deletions: 0, is_deleted: false };
                if self.known.insert(uid, fresh).is_some() {
                    return Err(format!("{uid} is an artifact already"));
                }
                self.shown(call.who, seen)?;
            }
            (_, Answer::Artifacts(artifacts)) => {
                artifacts.iter().try_for_each(|seen| self.shown(call.who, seen))?;
                let lost = self.known.iter().find(|(uid, artifact)| {
                    let is_shown = call.who == Who::Operator || call.who == artifact.who;
                    let is_listed = || artifacts.iter().any(|seen| seen.uid == **uid);
                    is_shown && artifact.is_surely_there() && !is_listed()
                });
                if let Some((uid, artifact)) = lost {
                    return Err(format!("the artifact {uid} is lost: {artifact:?}"));
                }
                if call.who == Who::Operator {
                    self.listed.clone_from(artifacts);
                }
            }
            (Ask::DeleteArtifact { uid }, answer) => {
                let Some(artifact) = self.known.get_mut(uid) else { return Ok(()) };
                match answer {
                    Answer::Done => artifact.is_deleted = true,
                    Answer::Refused { reason, .. } => {
                        artifact.deletions -= 1;
                        let is_lost = reason == "ARTIFACT_NOT_FOUND" && artifact.is_surely_there();
                        if is_lost {
                            return Err(format!("the artifact {uid} is lost: {artifact:?}"));
                        }
                    }
                    _ => {}
                }
            }
            (Ask::Resume(ask), answer) => {
                let Some(artifact) = self.known.get(&ask.artifact) else { return Ok(()) };
                let is_missing = matches!(answer, Answer::Refused { reason, .. }
                    if reason == "ARTIFACT_NOT_FOUND" || reason == "SNAPSHOT_NOT_FOUND");
                if is_missing && artifact.is_surely_there() {
                    return Err(format!("{} is not resumed: {artifact:?}", ask.artifact));
                }
                if matches!(answer, Answer::Resumed(_)) && artifact.who != call.who {
                    return Err(format!("{:?} resumes another's {artifact:?}", call.who));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn shown(&self, to: Who, seen: &SeenArtifact) -> Result<(), String> {
        if to != Who::Operator && seen.tenant != to.name() {
            return Err(format!("{to:?} sees {seen:?}"));
        }
        let Some(artifact) = self.known.get(&seen.uid) else { return Ok(()) };
        match artifact.is_deleted || artifact.id != seen.id || artifact.who.name() != seen.tenant {
            true => Err(format!("{seen:?} is shown, and is {artifact:?}")),
            false => Ok(()),
        }
    }

    /// Every artifact was deleted, and the service started once more.
    pub(crate) fn swept(&self, snapshots: &[String]) -> Result<(), String> {
        let is_never = |(_, artifact): &(&Uid, &Artifact)| artifact.is_surely_there();
        if let Some((uid, left)) = self.known.iter().find(is_never) {
            return Err(format!("the artifact {uid} was never deleted: {left:?}"));
        }
        if !self.listed.is_empty() {
            return Err(format!("everything was deleted, and these are left: {:?}", self.listed));
        }
        let is_artifacts = |it: &&String| it.starts_with("frozen-") || it.contains("artifact:");
        match snapshots.iter().find(is_artifacts) {
            Some(left) => Err(format!("of an artifact that was deleted this is left: {left}")),
            None => Ok(()),
        }
    }
}
