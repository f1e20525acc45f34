//! `hooks.status_to_code_transforms`: what an HTTP status of the application's back end means to clients.
//!
//! A back end whose framework answers 403 by itself need not wrap it: the status is told to the client as an error or a
//! disconnect of the operator's choice. A status without a transform is no answer.

use super::raw::{Entry, Value};
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// A status and its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusTransform {
    /// From 100 to 599, but not 200, whose body says what it means.
    pub status: u16,
    /// What the client is told.
    pub meaning: HookRefusal,
}

/// What a client is told where the back end does not give it what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookRefusal {
    /// Its command is answered by an error of the application.
    Error {
        /// Not 0.
        code: u32,
        /// For developers.
        message: String,
        /// Whether an SDK tries the same again after a while.
        is_temporary: bool,
    },
    /// It is disconnected.
    Disconnect {
        /// From 3000 to 4999.
        code: u32,
        /// What fits a close frame, and not nothing.
        reason: String,
    },
}

impl StatusTransform {
    /// Reads one table; none: it is not one.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let Value::Table(entries) = value else { return None };
        let mut fields = Fields(entries.iter().collect());
        let status = u16::try_from(fields.take_integer("status_code")?).ok()?;
        let meaning = match (fields.take_table("to_error"), fields.take_table("to_disconnect")) {
            (Some(error), None) => read_error(error)?,
            (None, Some(disconnect)) => read_disconnect(disconnect)?,
            _ => return None,
        };
        let is_status = (100..600).contains(&status) && status != 200;
        (fields.is_empty() && is_status).then_some(Self { status, meaning })
    }

    /// Reads a list, in which each status is once.
    pub(super) fn read_all(value: &Value) -> Option<Vec<Self>> {
        let Value::List(items) = value else { return None };
        let all: Vec<Self> = items.iter().map(|item| Self::read(&item.value)).collect::<Option<_>>()?;
        let is_once = |(index, one): (usize, &Self)| all[..index].iter().all(|other| other.status != one.status);
        all.iter().enumerate().all(is_once).then(|| all.clone())
    }
}

fn read_error(mut fields: Fields<'_>) -> Option<HookRefusal> {
    let code = u32::try_from(fields.take_integer("code")?).ok()?;
    let message = fields.take_text("message").unwrap_or_default();
    let is_temporary = fields.take_boolean("temporary").unwrap_or_default();
    (fields.is_empty() && code > 0).then_some(HookRefusal::Error { code, message, is_temporary })
}

fn read_disconnect(mut fields: Fields<'_>) -> Option<HookRefusal> {
    let code = u32::try_from(fields.take_integer("code")?).ok()?;
    let reason = fields.take_text("reason")?;
    let fits = (3000..5000).contains(&code) && (1..=CLOSE_REASON_BYTES_MAX).contains(&reason.len());
    (fields.is_empty() && fits).then_some(HookRefusal::Disconnect { code, reason })
}

/// Fields of a table that have not been read. One of a wrong type stays, and so does an unknown one.
struct Fields<'a>(Vec<&'a Entry>);

impl<'a> Fields<'a> {
    fn take<T>(&mut self, name: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let position = self.0.iter().position(|entry| entry.name == name)?;
        let value = read(&self.0[position].raw.value)?;
        self.0.swap_remove(position);
        Some(value)
    }

    fn take_integer(&mut self, name: &str) -> Option<i64> {
        self.take(name, |value| if let Value::Integer(integer) = value { Some(*integer) } else { None })
    }

    fn take_boolean(&mut self, name: &str) -> Option<bool> {
        self.take(name, |value| if let Value::Boolean(boolean) = value { Some(*boolean) } else { None })
    }

    fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name, |value| if let Value::Text(text) = value { Some(text.clone()) } else { None })
    }

    fn take_table(&mut self, name: &str) -> Option<Fields<'a>> {
        self.take(
            name,
            |value| if let Value::Table(table) = value { Some(Fields(table.iter().collect())) } else { None },
        )
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::read_list;

    fn read(list: &str) -> Option<Vec<StatusTransform>> {
        StatusTransform::read_all(&read_list("", list).expect("a list").value)
    }

    #[test]
    fn statuses_become_errors_and_disconnects() {
        let list = r#"[
            {"status_code": 404, "to_error": {"code": 404, "message": "not found", "temporary": true}},
            {"status_code": 429, "to_error": {"code": 111}},
            {"status_code": 403, "to_disconnect": {"code": 4501, "reason": "banned"}}
        ]"#;
        let error =
            |code, message: &str, is_temporary| HookRefusal::Error { code, message: message.to_owned(), is_temporary };
        let disconnect = HookRefusal::Disconnect { code: 4501, reason: "banned".to_owned() };
        assert_eq!(
            read(list).expect("it is in order"),
            [
                StatusTransform { status: 404, meaning: error(404, "not found", true) },
                StatusTransform { status: 429, meaning: error(111, "", false) },
                StatusTransform { status: 403, meaning: disconnect },
            ]
        );
        assert_eq!(read("[]"), Some(Vec::new()));
    }

    #[test]
    fn what_could_not_be_told_is_refused() {
        for wrong in [
            "[404]",
            r#"[{"to_error": {"code": 1}}]"#,
            r#"[{"status_code": "404", "to_error": {"code": 1}}]"#,
            r#"[{"status_code": 404}]"#,
            r#"[{"status_code": 200, "to_error": {"code": 1}}]"#,
            r#"[{"status_code": 99, "to_error": {"code": 1}}]"#,
            r#"[{"status_code": 600, "to_error": {"code": 1}}]"#,
            r#"[{"status_code": -404, "to_error": {"code": 1}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 0}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 4294967296}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 1, "mesage": "x"}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 1, "temporary": 1}}]"#,
            r#"[{"status_code": 404, "to_error": 404}]"#,
            r#"[{"status_code": 404, "to_disconnect": {"code": 2999, "reason": "x"}}]"#,
            r#"[{"status_code": 404, "to_disconnect": {"code": 5000, "reason": "x"}}]"#,
            r#"[{"status_code": 404, "to_disconnect": {"code": 4000}}]"#,
            r#"[{"status_code": 404, "to_disconnect": {"code": 4000, "reason": ""}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 1}, "to_disconnect": {"code": 4000, "reason": "x"}}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 1}, "more": 1}]"#,
            r#"[{"status_code": 404, "to_error": {"code": 1}}, {"status_code": 404, "to_error": {"code": 2}}]"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
