//! Lines of the log that say which call they are about, whatever the level is.

use std::fmt::{self, Write as _};

use hearth_pool::follow::Mark;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes lines as `format` does, and the mark of the call behind.
pub(super) struct Marked<F> {
    pub(super) format: F,
    /// Each line is a JSON object.
    pub(super) is_json: bool,
}

impl<F, S, N> FormatEvent<S, N> for Marked<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(mark) = Mark::current() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        add(&mut line, &mark, self.is_json)?;
        writeln!(writer, "{line}")
    }
}

/// Adds the call's id and its trace, if it has one.
fn add(line: &mut String, mark: &Mark, is_json: bool) -> fmt::Result {
    let trace = mark.trace_id;
    if is_json {
        line.truncate(line.strip_suffix('}').map_or(line.len(), str::len));
        write!(line, ",\"call\":\"{mark}\"")?;
        trace.map_or(Ok(()), |id| write!(line, ",\"trace_id\":\"{id:032x}\""))?;
        line.write_char('}')
    } else {
        write!(line, " call={mark}")?;
        trace.map_or(Ok(()), |id| write!(line, " trace_id={id:032x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU128;

    use super::*;

    #[test]
    fn lines_of_both_formats_have_the_mark_behind() {
        let mut mark = Mark { life: 1, number: 2, trace_id: None };
        let marked = |line: &str, mark: &Mark, is_json| {
            let mut line = line.to_owned();
            add(&mut line, mark, is_json).unwrap();
            line
        };
        assert_eq!(marked("{\"a\":{}}", &mark, true), "{\"a\":{},\"call\":\"00000001-2\"}");
        assert_eq!(marked("INFO done", &mark, false), "INFO done call=00000001-2");
        mark.trace_id = NonZeroU128::new(0xab);
        let json: serde_json::Value =
            serde_json::from_str(&marked("{\"a\":1}", &mark, true)).unwrap();
        assert_eq!(json["trace_id"], format!("{:030}ab", 0));
        let human = marked("INFO done", &mark, false);
        assert!(human.ends_with(&format!(" trace_id={:030}ab", 0)), "{human}");
    }
}
