//! Resource names: parsing them into ids and formatting ids into them.
//!
//! Every id that enters the system by a name passes through here, so what comes out of [`Collection::id`]
//! is safe in a path, a log line and a host name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`. Parsing borrows and
//! does not allocate unless it fails, since it lies on the path of every acquire.

use std::fmt;

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 63;

/// `vms/{vm}`.
pub const VMS: Collection = Collection { prefix: "vms/", pattern: "vms/{vm}" };
/// `pools/{pool}`.
pub const POOLS: Collection = Collection { prefix: "pools/", pattern: "pools/{pool}" };
/// `templates/{template}`, of the current generation. [`parse_template`] reads generations as well.
pub const TEMPLATES: Collection =
    Collection { prefix: "templates/", pattern: "templates/{template}" };
/// `artifacts/{artifact}`.
pub const ARTIFACTS: Collection =
    Collection { prefix: "artifacts/", pattern: "artifacts/{artifact}" };
/// `operations/{operation}`.
pub const OPERATIONS: Collection =
    Collection { prefix: "operations/", pattern: "operations/{operation}" };

const SNAPSHOT_PATTERN: &str = "vms/{vm}/snapshots/{snapshot}";
const GENERATION_PATTERN: &str = "templates/{template} or templates/{template}@{generation}";

/// Resources of one kind, which share the beginning of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    prefix: &'static str,
    pattern: &'static str,
}

impl Collection {
    /// What names of this collection look like, for people.
    #[must_use]
    pub const fn pattern(self) -> &'static str {
        self.pattern
    }

    /// The id in `name`.
    ///
    /// # Errors
    /// [`NameError`] when `name` is not of this collection or its id is malformed.
    pub fn id(self, name: &str) -> Result<&str, NameError> {
        let id = name
            .strip_prefix(self.prefix)
            .ok_or_else(|| NameError::new(self.pattern, name, None))?;
        check_id(id).map_err(|problem| NameError::new(self.pattern, name, Some(problem)))?;
        Ok(id)
    }

    /// The name of the resource with this id, which the caller has checked.
    #[must_use]
    pub fn name(self, id: &str) -> String {
        debug_assert!(check_id(id).is_ok(), "{id:?} never passed check_id");
        let mut name = String::with_capacity(self.prefix.len() + id.len());
        name.push_str(self.prefix);
        name.push_str(id);
        name
    }
}

/// The VM's and the snapshot's id in `vms/{vm}/snapshots/{snapshot}`.
///
/// # Errors
/// [`NameError`] when `name` has another form or one of its ids is malformed.
pub fn parse_snapshot(name: &str) -> Result<(&str, &str), NameError> {
    let fail = |problem| NameError::new(SNAPSHOT_PATTERN, name, problem);
    let (vm, snapshot) = name
        .strip_prefix(VMS.prefix)
        .and_then(|rest| rest.split_once("/snapshots/"))
        .ok_or_else(|| fail(None))?;
    check_id(vm).map_err(|problem| fail(Some(problem)))?;
    check_id(snapshot).map_err(|problem| fail(Some(problem)))?;
    Ok((vm, snapshot))
}

/// `vms/{vm}/snapshots/{snapshot}` of two ids that the caller has checked.
#[must_use]
pub fn snapshot_name(vm_id: &str, snapshot_id: &str) -> String {
    debug_assert!(check_id(vm_id).is_ok() && check_id(snapshot_id).is_ok());
    format!("{}{vm_id}/snapshots/{snapshot_id}", VMS.prefix)
}

/// The id in `templates/{template}`, or id and generation in `templates/{template}@{generation}`.
///
/// # Errors
/// [`NameError`] when `name` has another form, its id is malformed, or its generation is not a whole number
/// from 1, written without sign or leading zero.
pub fn parse_template(name: &str) -> Result<(&str, Option<i64>), NameError> {
    let fail = |problem| NameError::new(GENERATION_PATTERN, name, problem);
    let rest = name.strip_prefix(TEMPLATES.prefix).ok_or_else(|| fail(None))?;
    let (id, generation) = match rest.split_once('@') {
        Some((id, digits)) => (id, Some(parse_generation(digits).ok_or_else(|| fail(None))?)),
        None => (rest, None),
    };
    check_id(id).map_err(|problem| fail(Some(problem)))?;
    Ok((id, generation))
}

/// `templates/{template}@{generation}` of an id that the caller has checked.
#[must_use]
pub fn generation_name(template_id: &str, generation: i64) -> String {
    debug_assert!(check_id(template_id).is_ok() && generation > 0);
    format!("{}{template_id}@{generation}", TEMPLATES.prefix)
}

/// Whether `id` can be the id of a resource.
///
/// # Errors
/// [`IdProblem`], the first thing that is wrong with it.
pub fn check_id(id: &str) -> Result<(), IdProblem> {
    if id.is_empty() {
        return Err(IdProblem::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(IdProblem::TooLong);
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(bad) = id.chars().find(|&c| !allowed(c)) {
        return Err(IdProblem::Character(bad));
    }
    if id.starts_with('-') || id.ends_with('-') {
        return Err(IdProblem::DashAtEdge);
    }
    Ok(())
}

/// What is wrong with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// There is none.
    #[error("the id is empty")]
    Empty,
    /// It has more than [`MAX_ID_BYTES`].
    #[error("the id is longer than {MAX_ID_BYTES} characters")]
    TooLong,
    /// It has a character other than lower-case letters, digits and dashes.
    #[error("the id may have lower-case letters, digits and dashes, and not {0:?}")]
    Character(char),
    /// It begins or ends with a dash.
    #[error("the id may not begin or end with a dash")]
    DashAtEdge,
}

/// A string that is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NameError {
    /// What a name of the expected kind looks like.
    pub expected: &'static str,
    /// The beginning of what was there instead.
    pub found: String,
    /// What is wrong with the id. `None` when the name has another form altogether.
    pub problem: Option<IdProblem>,
}

impl NameError {
    /// Characters of a bad name that are repeated in the error: enough to recognise it by, and no more
    /// than a log line bears.
    const MAX_FOUND: usize = 80;

    fn new(expected: &'static str, name: &str, problem: Option<IdProblem>) -> Self {
        Self { expected, found: name.chars().take(Self::MAX_FOUND).collect(), problem }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {:?}", self.expected, self.found)?;
        match self.problem {
            Some(problem) => write!(f, ": {problem}"),
            None => Ok(()),
        }
    }
}

/// `i64::from_str` accepts a sign and leading zeros; two spellings of one name would be two keys.
fn parse_generation(digits: &str) -> Option<i64> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if canonical { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Collection; 5] = [VMS, POOLS, TEMPLATES, ARTIFACTS, OPERATIONS];

    #[test]
    fn names_come_back_as_the_ids_they_were_made_of() {
        let longest = "a".repeat(MAX_ID_BYTES);
        for id in ["a", "7", "a-b", "a--b", "0-0", longest.as_str()] {
            for collection in ALL {
                assert_eq!(collection.id(&collection.name(id)), Ok(id));
            }
            assert_eq!(parse_snapshot(&snapshot_name(id, "s1")), Ok((id, "s1")));
            assert_eq!(parse_template(&TEMPLATES.name(id)), Ok((id, None)));
            for generation in [1, 10, i64::MAX] {
                let name = generation_name(id, generation);
                assert_eq!(parse_template(&name), Ok((id, Some(generation))));
            }
        }
    }

    #[test]
    fn a_name_of_another_collection_is_refused() {
        for collection in ALL {
            for other in ALL.iter().filter(|&&other| other != collection) {
                assert!(collection.id(&other.name("x")).is_err());
            }
            for bad in ["", "x", "/", "vms", "VMS/x", " vms/x", "/vms/x"] {
                assert!(collection.id(bad).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn malformed_ids_are_refused_with_the_reason() {
        let cases = [
            ("", IdProblem::Empty),
            (&*"a".repeat(64), IdProblem::TooLong),
            (&*"a".repeat(100_000), IdProblem::TooLong),
            ("a/b", IdProblem::Character('/')),
            ("..", IdProblem::Character('.')),
            ("a\0", IdProblem::Character('\0')),
            ("Vm", IdProblem::Character('V')),
            ("a_b", IdProblem::Character('_')),
            ("a b", IdProblem::Character(' ')),
            ("a\n", IdProblem::Character('\n')),
            ("é", IdProblem::Character('é')),
            ("-a", IdProblem::DashAtEdge),
            ("a-", IdProblem::DashAtEdge),
            ("-", IdProblem::DashAtEdge),
        ];
        for (id, problem) in cases {
            assert_eq!(check_id(id), Err(problem), "{id:?}");
            let error = VMS.id(&format!("vms/{id}")).unwrap_err();
            assert_eq!(error.problem, Some(problem), "{id:?}");
            assert!(error.found.chars().count() <= NameError::MAX_FOUND);
        }
    }

    #[test]
    fn snapshots_and_generations_have_one_spelling() {
        for bad in [
            "vms/a",
            "vms/a/snapshots",
            "vms/a/snapshots/",
            "vms//snapshots/s",
            "vms/a/snapshots/s/x",
            "vms/a/snapshots/s/snapshots/t",
            "pools/a/snapshots/s",
        ] {
            assert!(parse_snapshot(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "@1", "a@", "a@0", "a@01", "a@+1", "a@-1", "a@1@2", "a@x"] {
            assert!(parse_template(&format!("templates/{bad}")).is_err(), "{bad:?}");
        }
        assert!(parse_template("templates/a@9223372036854775808").is_err());
        assert!(TEMPLATES.id("templates/a@1").is_err());
    }

    #[test]
    fn an_error_says_what_was_expected_and_what_was_found() {
        let error = VMS.id("pools/a").unwrap_err();
        assert_eq!(error.to_string(), r#"expected vms/{vm}, found "pools/a""#);
        let error = VMS.id("vms/a_b").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"expected vms/{vm}, found "vms/a_b": the id may have lower-case letters, digits and dashes, and not '_'"#
        );
    }
}
