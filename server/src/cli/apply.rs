//! `hearth apply`: makes templates and pools what a file says.
//!
//! The file owns what it names, field by field: a field that it sets is made so, one that it leaves out
//! stays as it is, and whatever it does not name at all is none of its business and never deleted. So
//! applying a file twice changes nothing the second time. Templates come first, since pools need them.

mod file;

use std::path::PathBuf;

use clap::Args;
use hearth_proto::v1;
use serde::Serialize;

use super::context::{Context, new_request_id};
use super::error::{Error, Result};
use super::operations;
use super::output::{Format, Tone, out_has_colours, print_json, write_out};
use super::pools::{self, Settings};
use super::templates::Recipe;
use super::text::qualify;

pub(crate) use file::File;

/// Arguments of `hearth apply`.
#[derive(Args, Debug)]
#[command(after_help = file::EXAMPLE)]
pub(crate) struct Apply {
    /// The file, in TOML; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Build the templates that the file names anew, also those that are as it says: for when
    /// what their snapshots depend on has changed, as the provider's version or a file.
    #[arg(long)]
    rebuild: bool,
    /// Wait until the pools that the file names are full.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Say what would change and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What became of everything.
#[derive(Debug, Serialize)]
struct Report<'a> {
    dry_run: bool,
    changes: &'a [Change],
}

/// What became of one resource.
#[derive(Debug, Serialize)]
struct Change {
    name: String,
    change: Kind,
    /// The fields that changed; of one that is there already.
    fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Created,
    Updated,
    /// A template whose build had failed, or all when asked for, was built again.
    Rebuilt,
    Unchanged,
}

impl Kind {
    const fn verb(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Created, false) => "created",
            (Self::Created, true) => "would create",
            (Self::Updated, false) => "updated",
            (Self::Updated, true) => "would update",
            (Self::Rebuilt, false) => "rebuilt",
            (Self::Rebuilt, true) => "would rebuild",
            (Self::Unchanged, _) => "unchanged",
        }
    }
}

impl Apply {
    /// Reads the file and checks it by itself.
    ///
    /// # Errors
    /// [`Error::Usage`] with the line that is wrong.
    pub(crate) fn read(&self) -> Result<File> {
        File::read(&self.file)
    }

    /// Makes everything what `file` says, and prints what that changed.
    pub(crate) async fn run(self, context: &mut Context, file: &File) -> Result<()> {
        let mut changes = Vec::new();
        let result = self.apply(context, file, &mut changes).await;
        // What was done before a failure was done, and is told.
        let printed = match context.format {
            Format::Json => print_json(&Report { dry_run: self.dry_run, changes: &changes }),
            Format::Name => write_out(
                changes.iter().map(|it| format!("{}\n", it.name)).collect::<String>().as_bytes(),
            ),
            Format::Table | Format::Wide => Ok(()),
        };
        result.and(printed)
    }

    async fn apply(
        &self,
        context: &mut Context,
        file: &File,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        for (id, recipe) in &file.templates {
            let change = self.template(context, file, id, recipe).await;
            self.done(context, changes, change.map_err(|error| named(error, "templates", id))?)?;
        }
        for (id, settings) in &file.pools {
            let change = self.pool(context, file, id, settings).await;
            self.done(context, changes, change.map_err(|error| named(error, "pools", id))?)?;
        }
        if self.wait {
            for id in file.pools.keys() {
                pools::until_full(context, id, None).await?;
            }
        }
        Ok(())
    }

    fn done(&self, context: &Context, changes: &mut Vec<Change>, change: Change) -> Result<()> {
        if matches!(context.format, Format::Table | Format::Wide) {
            let fields = match change.fields.is_empty() {
                true => String::new(),
                false => format!(": {}", change.fields.join(", ")),
            };
            let tone = match change.change {
                Kind::Created | Kind::Updated | Kind::Rebuilt => Tone::Good,
                Kind::Unchanged => Tone::Plain,
            };
            let verb = tone.paint(change.change.verb(self.dry_run), out_has_colours());
            write_out(format!("{verb} {}{fields}\n", change.name).as_bytes())?;
        }
        changes.push(change);
        Ok(())
    }

    async fn template(
        &self,
        context: &mut Context,
        file: &File,
        id: &str,
        recipe: &Recipe,
    ) -> Result<Change> {
        let name = qualify("templates", id);
        let templates = &mut context.client.templates;
        let request = v1::GetTemplateRequest { name: name.clone() };
        let current = match templates.get_template(request).await.map_err(Error::from) {
            Ok(current) => current.into_inner(),
            Err(error) if error.is_not_found() => {
                let mut template = v1::Template {
                    provider: recipe.provider.clone().unwrap_or_default(),
                    ..Default::default()
                };
                recipe.lay_over(&mut template, &file.directory);
                let request = v1::CreateTemplateRequest {
                    template_id: id.to_owned(),
                    template: Some(template),
                    request_id: new_request_id(),
                    validate_only: self.dry_run,
                };
                let operation = templates.create_template(request).await?.into_inner();
                operations::finish(context, operation).await?;
                return Ok(Change { name, change: Kind::Created, fields: Vec::new() });
            }
            Err(error) => return Err(error),
        };
        if recipe.provider.as_ref().is_some_and(|wanted| *wanted != current.provider) {
            return Err(Error::Usage(format!(
                "{name} is for provider {}, and that cannot be changed: give it another name",
                current.provider
            )));
        }
        let has_failed = current.state() == v1::template::State::Failed;
        let mut template = current;
        let mut fields = recipe.lay_over(&mut template, &file.directory);
        let change = match fields.is_empty() {
            false => Kind::Updated,
            true if has_failed || self.rebuild => Kind::Rebuilt,
            true => return Ok(Change { name, change: Kind::Unchanged, fields }),
        };
        if change == Kind::Rebuilt {
            fields.push("spec".to_owned());
        }
        let request = v1::UpdateTemplateRequest {
            template: Some(template),
            update_mask: Some(prost_types::FieldMask { paths: fields.clone() }),
            request_id: new_request_id(),
            validate_only: self.dry_run,
        };
        let operation = templates.update_template(request).await?.into_inner();
        operations::finish(context, operation).await?;
        if change == Kind::Rebuilt {
            fields.clear();
        }
        Ok(Change { name, change, fields })
    }

    async fn pool(
        &self,
        context: &mut Context,
        file: &File,
        id: &str,
        settings: &Settings,
    ) -> Result<Change> {
        let name = qualify("pools", id);
        let current = match pools::get(context, id).await {
            Ok(current) => current,
            Err(error) if error.is_not_found() => {
                let mut pool = v1::Pool::default();
                settings.lay_over(&mut pool);
                let request = v1::CreatePoolRequest {
                    pool_id: id.to_owned(),
                    pool: Some(pool),
                    request_id: String::new(),
                    validate_only: self.dry_run,
                };
                // In a dry run its template may be one that this file would have made before.
                if !(self.dry_run && file.makes_template_of(settings)) {
                    context.client.pools.create_pool(request).await?;
                }
                return Ok(Change { name, change: Kind::Created, fields: Vec::new() });
            }
            Err(error) => return Err(error),
        };
        let mut pool = current.clone();
        let mut fields = settings.lay_over(&mut pool);
        fields.retain(|field| differs(field, &current, &pool));
        if fields.is_empty() {
            return Ok(Change { name, change: Kind::Unchanged, fields });
        }
        let request = v1::UpdatePoolRequest {
            pool: Some(pool),
            update_mask: Some(prost_types::FieldMask { paths: fields.clone() }),
            request_id: String::new(),
            validate_only: self.dry_run,
        };
        if !(self.dry_run && file.makes_template_of(settings)) {
            context.client.pools.update_pool(request).await?;
        }
        Ok(Change { name, change: Kind::Updated, fields })
    }
}

/// Whether the two differ in this field of those that [`Settings::lay_over`] names.
fn differs(field: &str, current: &v1::Pool, wanted: &v1::Pool) -> bool {
    match field {
        "template" => current.template != wanted.template,
        "sizing" => current.sizing != wanted.sizing,
        "warm_state" => current.warm_state != wanted.warm_state,
        "max_warm_age" => current.max_warm_age != wanted.max_warm_age,
        "max_parallel_restores" => current.max_parallel_restores != wanted.max_parallel_restores,
        "default_overflow" => current.default_overflow != wanted.default_overflow,
        "default_ttl" => current.default_ttl != wanted.default_ttl,
        "max_ttl" => current.max_ttl != wanted.max_ttl,
        "priority" => current.priority != wanted.priority,
        "rollout.cut_over" => {
            current.rollout.unwrap_or_default().cut_over
                != wanted.rollout.unwrap_or_default().cut_over
        }
        "rollout.max_surge" => {
            current.rollout.unwrap_or_default().max_surge
                != wanted.rollout.unwrap_or_default().max_surge
        }
        "refill_warm_up" => current.refill_warm_up != wanted.refill_warm_up,
        "prefault_memory" => current.prefault_memory != wanted.prefault_memory,
        _ => true,
    }
}

/// An error with the resource that it is about.
fn named(error: Error, collection: &str, id: &str) -> Error {
    error.with_hint(format!("while applying {collection}/{id}; what was said above is done"))
}
