//! `hearth pools`: what is kept warm.

mod scheduler;
mod settings;
mod wait;

use clap::{Args, Subcommand};
use hearth_proto::v1;

use super::context::{Context, PAGE_SIZE};
use super::error::{Error, Result};
use super::output::{Format, print_json, print_list, print_one, write_out};
use super::text::qualify;
use super::view::Pool;
use super::watch;

pub(crate) use scheduler::explanation;
pub(crate) use settings::Settings;
pub(crate) use wait::until_full;

/// `hearth pools`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List pools (the default).
    #[command(visible_alias = "ls")]
    List(List),
    /// Tell of pools as they come, change and go, a line for each event, until interrupted.
    Watch {
        /// Only those that match, as `template = templates/default`.
        #[arg(long, value_name = "EXPRESSION", default_value = "")]
        filter: String,
    },
    /// Show one pool.
    Get {
        /// The pool.
        name: String,
    },
    /// Make a pool, which begins to fill at once.
    Create {
        /// The pool.
        name: String,
        #[command(flatten)]
        settings: Box<Settings>,
        /// Wait until it is full.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        /// Check the request and make nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Change what is given of a pool's settings. Leases are not touched.
    Update {
        /// The pool.
        name: String,
        #[command(flatten)]
        settings: Box<Settings>,
        /// Refuse if the pool has changed since it had this etag.
        #[arg(long, default_value = "")]
        etag: String,
        /// Wait until it is full again.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        /// Check the request and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a pool and its warm VMs.
    #[command(visible_alias = "rm")]
    Delete {
        /// The pool.
        name: String,
        /// Delete it although VMs of it are leased; they stay to the end of their leases.
        #[arg(long)]
        force: bool,
        /// Refuse if the pool has changed since it had this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Say how many VMs a pool keeps warm, why, and what was missed.
    Explain {
        /// The pool.
        name: String,
    },
    /// Say what an acquire would get now. Takes nothing.
    Resolve(scheduler::Resolve),
    /// Announce demand: keep more VMs warm for a while.
    Prewarm(scheduler::Prewarm),
    /// Take an announcement back.
    CancelPrewarm {
        /// The pool.
        name: String,
        /// The id that `prewarm` printed, and `explain` lists.
        prewarm_id: String,
    },
    /// Keep a pool empty and take no acquires for it; leases stay.
    Drain {
        /// The pool.
        name: String,
        /// Wait until no VM of it is left: warm ones go at once, others when they are released or their leases
        /// end.
        #[arg(long)]
        wait: bool,
    },
    /// Fill a pool again that was drained, and take acquires.
    Undrain {
        /// The pool.
        name: String,
        /// Wait until it is full.
        #[arg(long)]
        wait: bool,
    },
    /// Wait until a pool has warm VMs; also while the server is still starting.
    Wait {
        /// The pool.
        name: String,
        /// How many; the pool's target when not given.
        #[arg(long, value_name = "N")]
        warm: Option<i32>,
    },
}

/// Which pools to list.
#[derive(Args, Debug, Default)]
struct List {
    /// Only those that match, as `template = templates/default`.
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    filter: String,
    /// Go on showing what becomes of them, until interrupted.
    #[arg(long, short)]
    watch: bool,
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &mut Context) -> Result<()> {
        let pools = &mut context.client.pools;
        let pool = match self.verb.unwrap_or_else(|| Verb::List(List::default())) {
            Verb::List(List { filter, watch: true }) => {
                return watch::follow::<Pool>(context, &filter).await;
            }
            Verb::List(List { filter, watch: false }) => {
                let pools = all(context, filter).await?;
                return print_list(context.format, "pools", &pools);
            }
            Verb::Watch { filter } => return watch::events::<Pool>(context, &filter).await,
            Verb::Explain { name } => return scheduler::explain(context, &name).await,
            Verb::Resolve(resolve) => return resolve.run(context).await,
            Verb::Prewarm(prewarm) => return prewarm.run(context).await,
            Verb::CancelPrewarm { name, prewarm_id } => {
                scheduler::cancel(context, &name, prewarm_id).await?
            }
            Verb::Drain { name, wait } => {
                let pool = scheduler::drain(context, &name, false).await?;
                if wait { wait::until_empty(context, &name).await? } else { pool }
            }
            Verb::Undrain { name, wait } => {
                let pool = scheduler::drain(context, &name, true).await?;
                if wait { until_full(context, &name, None).await? } else { pool }
            }
            Verb::Get { name } => get(context, &name).await?,
            Verb::Wait { name, warm } => until_full(context, &name, warm).await?,
            Verb::Create { name, settings, wait, dry_run } => {
                let mut pool = v1::Pool::default();
                settings.lay_over(&mut pool);
                let request = v1::CreatePoolRequest {
                    pool_id: name.strip_prefix("pools/").unwrap_or(&name).to_owned(),
                    pool: Some(pool),
                    request_id: String::new(),
                    validate_only: dry_run,
                };
                let pool = pools.create_pool(request).await?.into_inner();
                if wait { until_full(context, &name, None).await? } else { pool }
            }
            Verb::Update { name, settings, etag, wait, dry_run } => {
                let name = qualify("pools", &name);
                let mut pool = v1::Pool { name: name.clone(), etag, ..Default::default() };
                let paths = settings.lay_over(&mut pool);
                if paths.is_empty() {
                    return Err(Error::Usage("say what to change: see --help".to_owned()));
                }
                let request = v1::UpdatePoolRequest {
                    pool: Some(pool),
                    update_mask: Some(prost_types::FieldMask { paths }),
                    request_id: String::new(),
                    validate_only: dry_run,
                };
                let pool = pools.update_pool(request).await?.into_inner();
                if wait { until_full(context, &name, None).await? } else { pool }
            }
            Verb::Delete { name, force, etag } => {
                let name = qualify("pools", &name);
                let request =
                    v1::DeletePoolRequest { name: name.clone(), force, etag, ..Default::default() };
                pools.delete_pool(request).await?;
                return print_deleted(context.format, &name);
            }
        };
        print_one(context.format, &Pool::from(pool))
    }
}

/// Says that a resource is no more.
pub(crate) fn print_deleted(format: Format, name: &str) -> Result<()> {
    match format {
        Format::Json => print_json(&serde_json::json!({ "deleted": name })),
        Format::Name => write_out(format!("{name}\n").as_bytes()),
        Format::Table | Format::Wide => write_out(format!("deleted {name}\n").as_bytes()),
    }
}

/// Reads one pool.
pub(crate) async fn get(context: &mut Context, name: &str) -> Result<v1::Pool> {
    let request = v1::GetPoolRequest { name: qualify("pools", name) };
    Ok(context.client.pools.get_pool(request).await?.into_inner())
}

/// All pools that match.
pub(crate) async fn all(context: &mut Context, filter: String) -> Result<Vec<Pool>> {
    let mut request = v1::ListPoolsRequest { page_size: PAGE_SIZE, filter, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = context.client.pools.list_pools(request.clone()).await?.into_inner();
        all.extend(page.pools.into_iter().map(Pool::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}
