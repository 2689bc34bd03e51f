//! `hearth templates`: what VMs are restored from.

mod recipe;

use clap::{Args, Subcommand};
use hearth_proto::client::operation_response;
use hearth_proto::v1;

use super::context::{Context, PAGE_SIZE, new_request_id};
use super::error::{Error, Result};
use super::operations;
use super::output::{print_list, print_one};
use super::pools::print_deleted;
use super::spec::Spec;
use super::text::qualify;
use super::view::{Operation, Template};
use super::vms::snapshot_ref;
use super::watch;

pub(crate) use recipe::{ReadinessFlags, Recipe};

/// `hearth templates`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List templates (the default).
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one template, or one generation of it: NAME@GENERATION.
    Get {
        /// The template.
        name: String,
    },
    /// Build a template: boot a VM, wait until it is ready, warm it up, capture it.
    Create(Box<Create>),
    /// Make a template of a snapshot that is there already.
    Import(Box<Import>),
    /// List the generations of a template that are kept, the newest first.
    Generations {
        /// The template.
        name: String,
        /// Only those that match, as `state = READY`.
        #[arg(long, default_value = "")]
        filter: String,
    },
    /// Make an earlier generation the current one again, under a new number. Nothing is built.
    Rollback {
        /// The template.
        name: String,
        /// The generation; the last one before the current that is ready when not given.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        generation: Option<i64>,
        /// Refuse if the template has changed since it had this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Delete a template that no pool needs, and its snapshots.
    #[command(visible_alias = "rm")]
    Delete {
        /// The template.
        name: String,
        /// Refuse if the template has changed since it had this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
}

/// Which templates to list.
#[derive(Args, Debug, Default)]
struct List {
    /// Only those that match, as `state = READY`.
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    filter: String,
    /// Go on showing what becomes of them, until interrupted.
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of `hearth templates create`.
#[derive(Args, Debug)]
struct Create {
    /// The template.
    name: String,
    /// The provider to make its VMs; the node's first when not given.
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    #[command(flatten)]
    spec: Spec,
    #[command(flatten)]
    readiness: ReadinessFlags,
    /// A line to send to the guest's agent before the capture; may be given several times.
    #[arg(long, value_name = "LINE")]
    warm_up: Vec<String>,
    /// Do not wait until it is built; print the operation.
    #[arg(long = "async")]
    no_wait: bool,
    /// Check the request and build nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `hearth templates import`.
#[derive(Args, Debug)]
struct Import {
    /// The template.
    name: String,
    /// The snapshot, vms/VM/snapshots/SNAPSHOT.
    #[arg(long, value_name = "SNAPSHOT")]
    from: String,
    /// The uid of the snapshot's VM, when that is gone or its name in use again.
    #[arg(long, value_name = "UID")]
    from_uid: Option<String>,
    /// The provider that has the snapshot; the node's first when not given.
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    #[command(flatten)]
    spec: Spec,
    #[command(flatten)]
    readiness: ReadinessFlags,
    /// Check the request and import nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        match self.verb.unwrap_or_else(|| Verb::List(List::default())) {
            Verb::List(List { filter, watch: true }) => {
                let ask = async |context: &mut Context| all(context, filter.clone()).await;
                watch::list(context, "template", ask).await
            }
            Verb::List(List { filter, watch: false }) => {
                print_list(context.format, "templates", &all(context, filter).await?)
            }
            Verb::Get { name } => {
                let request = v1::GetTemplateRequest { name: qualify("templates", &name) };
                let answer = context.client.templates.get_template(request).await?;
                print_one(context.format, &Template::from(answer.into_inner()))
            }
            Verb::Create(create) => create.run(context).await,
            Verb::Import(import) => import.run(context).await,
            Verb::Generations { name, filter } => generations(context, &name, filter).await,
            Verb::Rollback { name, generation, etag } => {
                let id = template_id(&name).to_owned();
                let request = v1::RollbackTemplateRequest {
                    name: qualify("templates", &name),
                    generation: generation.unwrap_or(0),
                    etag,
                    request_id: new_request_id(),
                };
                let made = context.client.templates.rollback_template(request).await;
                let made = made.map_err(|status| {
                    Error::from(status).with_hint(format!(
                        "`hearth templates generations {id}` lists those that are kept"
                    ))
                })?;
                print_one(context.format, &Template::from(made.into_inner()))
            }
            Verb::Delete { name, etag } => {
                let name = qualify("templates", &name);
                let request =
                    v1::DeleteTemplateRequest { name: name.clone(), etag, ..Default::default() };
                context.client.templates.delete_template(request).await?;
                print_deleted(context.format, &name)
            }
        }
    }
}

impl Create {
    async fn run(self, context: &mut Context) -> Result<()> {
        let step = |line: String| v1::WarmUp {
            step: Some(v1::warm_up::Step::Request(line)),
            ..Default::default()
        };
        let template = v1::Template {
            provider: self.provider.unwrap_or_default(),
            spec: Some(self.spec.to_wire(&context.directory)),
            readiness: self.readiness.to_wire(),
            warm_up: self.warm_up.into_iter().map(step).collect(),
            ..Default::default()
        };
        let request = v1::CreateTemplateRequest {
            template_id: template_id(&self.name).to_owned(),
            template: Some(template),
            request_id: new_request_id(),
            validate_only: self.dry_run,
        };
        let operation = context.client.templates.create_template(request).await?.into_inner();
        if self.no_wait {
            return print_one(context.format, &Operation::from(operation));
        }
        let done = operations::finish(context, operation).await?;
        print_one(context.format, &Template::from(operation_response::<v1::Template>(&done)?))
    }
}

impl Import {
    async fn run(self, context: &mut Context) -> Result<()> {
        let spec = (!self.spec.is_empty()).then(|| self.spec.to_wire(&context.directory));
        let request = v1::ImportTemplateRequest {
            template_id: template_id(&self.name).to_owned(),
            provider: self.provider.unwrap_or_default(),
            source: Some(snapshot_ref(&self.from, self.from_uid)?),
            spec,
            readiness: self.readiness.to_wire(),
            warm_up: Vec::new(),
            request_id: new_request_id(),
            validate_only: self.dry_run,
        };
        let template = context.client.templates.import_template(request).await?.into_inner();
        print_one(context.format, &Template::from(template))
    }
}

/// The id in what the user wrote, which may be the name.
pub(crate) fn template_id(text: &str) -> &str {
    text.strip_prefix("templates/").unwrap_or(text)
}

/// All templates that match.
pub(crate) async fn all(context: &mut Context, filter: String) -> Result<Vec<Template>> {
    let mut request =
        v1::ListTemplatesRequest { page_size: PAGE_SIZE, filter, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = context.client.templates.list_templates(request.clone()).await?.into_inner();
        all.extend(page.templates.into_iter().map(Template::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn generations(context: &mut Context, name: &str, filter: String) -> Result<()> {
    let mut request = v1::ListGenerationsRequest {
        name: qualify("templates", name),
        page_size: PAGE_SIZE,
        filter,
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        let page = context.client.templates.list_generations(request.clone()).await?.into_inner();
        all.extend(page.generations.into_iter().map(Template::from));
        if page.next_page_token.is_empty() {
            return print_list(context.format, "generations", &all);
        }
        request.page_token = page.next_page_token;
    }
}
