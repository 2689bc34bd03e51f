//! `TemplateService`.

use std::sync::Arc;

use hearth_pool::error::{Error, Kind};
use hearth_pool::ids::TemplateId;
use hearth_pool::templates::Template;
use hearth_proto::google::longrunning::Operation;
use hearth_proto::v1::template_service_server::TemplateService;
use hearth_proto::{names, v1};
use tonic::{Request, Response, Status};

use super::{Services, in_field};
use crate::call::{Call, answer};
use crate::check::Fields;
use crate::convert::{operation, spec, template};
use crate::filter::{Field, Filter};
use crate::paging::Page;
use crate::status::Refusal;

type Answer<T> = Result<Response<T>, Status>;

const FILTER: &[Field] =
    &[Field::OneOf("state", "STATE_", &["BUILDING", "READY", "FAILED"]), Field::Text("provider")];

impl Services {
    pub(super) fn template_to_wire(&self, made: &Template) -> v1::Template {
        let provider = self.manager.provider(&made.provider).ok();
        template::to_wire(made, provider.map(Arc::as_ref))
    }

    /// The same, as one of several: its name says which.
    fn generation_to_wire(&self, made: &Template) -> v1::Template {
        let name = names::generation_name(made.id.as_str(), made.generation);
        v1::Template { name, ..self.template_to_wire(made) }
    }

    async fn make_template(
        self,
        _: Call,
        request: v1::CreateTemplateRequest,
    ) -> Result<Operation, Refusal> {
        let mut fields = Fields::default();
        let id = fields.id("template_id", &request.template_id, TemplateId::parse);
        fields.request_id(&request.request_id);
        let asked = request.template.unwrap_or_default();
        let provider = Arc::clone(self.manager.provider(&asked.provider)?);
        // The rest is read even if the id is wrong, so that all is said at once.
        let stand_in =
            TemplateId::parse("template").map_err(|error| Error::Internal(error.to_string()))?;
        let id_or = id.clone().unwrap_or(stand_in);
        let recipe = template::recipe(&mut fields, id_or, &provider, asked)?;
        fields.required(id)?;
        self.build(recipe, false, request.validate_only).await
    }

    async fn change_template(
        self,
        _: Call,
        request: v1::UpdateTemplateRequest,
    ) -> Result<Operation, Refusal> {
        let mut fields = Fields::default();
        let asked = request.template.unwrap_or_default();
        let id = fields.template("template.name", &asked.name);
        fields.request_id(&request.request_id);
        let paths = template::paths(&mut fields, request.update_mask.as_ref(), &asked);
        let id = fields.required(id)?;
        let former = self.manager.template(&id)?;
        let (etag, name) = (asked.etag.clone(), id.to_string());
        if !etag.is_empty() && etag != former.etag {
            return Err(Error::EtagMismatch { kind: Kind::Template, name }.into());
        }
        let provider = Arc::clone(self.manager.provider(&former.provider)?);
        let changed = template::recipe(&mut fields, id, &provider, asked)?;
        fields.done()?;
        let mut recipe = former.as_ref().clone();
        for path in paths {
            match path {
                "spec" => recipe.spec = changed.spec.clone(),
                "readiness" => {
                    recipe.readiness = changed.readiness.clone();
                    recipe.ready_timeout = changed.ready_timeout;
                }
                "warm_up" => recipe.warm_up.clone_from(&changed.warm_up),
                _ => {}
            }
        }
        recipe.imported = false;
        self.build(recipe, true, request.validate_only).await
    }

    async fn build(
        self,
        recipe: Template,
        replaces: bool,
        validate_only: bool,
    ) -> Result<Operation, Refusal> {
        let refused = |error| in_field("template.spec", error);
        if validate_only {
            self.manager.check_template(&recipe).map_err(refused)?;
            if !replaces && self.manager.template(&recipe.id).is_ok() {
                let (kind, name) = (Kind::Template, recipe.id.to_string());
                return Err(Error::AlreadyExists { kind, name }.into());
            }
            return Ok(operation::checked(&self.template_to_wire(&recipe)));
        }
        let begun = self.manager.create_template(recipe, replaces).await.map_err(refused)?;
        let begun = self.manager.operations().get(&begun)?;
        Ok(self.operation_to_wire(&begun))
    }

    async fn import(
        self,
        _: Call,
        request: v1::ImportTemplateRequest,
    ) -> Result<v1::Template, Refusal> {
        let mut fields = Fields::default();
        let id = fields.id("template_id", &request.template_id, TemplateId::parse);
        fields.request_id(&request.request_id);
        let provider = Arc::clone(self.manager.provider(&request.provider)?);
        let source = match request.source {
            Some(source) => spec::snapshot_ref(&mut fields, "source", source)?,
            None => {
                fields.wrong("source", "it must be set");
                None
            }
        };
        if let Some(source) = &source {
            if source.resume_immediately {
                fields.wrong("source.resume_immediately", "it has no meaning here");
            }
            if !source.network_overrides.is_empty() {
                fields.wrong("source.network_overrides", "they have no meaning here");
            }
        }
        let recipe = v1::Template {
            spec: request.spec,
            readiness: request.readiness,
            warm_up: request.warm_up,
            ..Default::default()
        };
        let stand_in =
            TemplateId::parse("template").map_err(|error| Error::Internal(error.to_string()))?;
        let id_or = id.clone().unwrap_or(stand_in);
        let recipe = template::recipe(&mut fields, id_or, &provider, recipe)?;
        let (_, source) = fields.required(id.zip(source))?;
        if request.validate_only {
            if self.manager.template(&recipe.id).is_ok() {
                let (kind, name) = (Kind::Template, recipe.id.to_string());
                return Err(Error::AlreadyExists { kind, name }.into());
            }
            provider.runtime.snapshot(&source)?;
            return Ok(self.template_to_wire(&recipe));
        }
        let made = self.manager.import_template(recipe, source).await;
        let made = made.map_err(|error| in_field("spec", error))?;
        Ok(self.template_to_wire(&made))
    }

    async fn get_one_template(
        &self,
        _: Call,
        request: v1::GetTemplateRequest,
    ) -> Result<v1::Template, Refusal> {
        let mut fields = Fields::default();
        let name = fields.generation("name", &request.name);
        let (id, generation) = fields.required(name)?;
        match generation {
            Some(generation) => {
                Ok(self.generation_to_wire(&*self.manager.generation(&id, generation)?))
            }
            None => Ok(self.template_to_wire(&*self.manager.template(&id)?)),
        }
    }

    async fn generations(
        &self,
        _: Call,
        request: v1::ListGenerationsRequest,
    ) -> Result<v1::ListGenerationsResponse, Refusal> {
        let filter = Filter::parse(&request.filter, &FILTER[..1])?;
        let mut fields = Fields::default();
        let id = fields.template("name", &request.name);
        let id = fields.required(id)?;
        let list = format!("generations of {id}");
        let page = Page::of(&list, &request.filter, request.page_size, &request.page_token)?;
        let kept = self.manager.generations(&id)?.into_iter();
        let kept = kept.filter(|it| filter.matches(|_| Some(template::state_name(it).into())));
        // Pages are by name, in its order: here the newest comes first.
        let placed = kept.map(|it| (format!("{:019}", i64::MAX - it.generation), it));
        let (page, next_page_token) = page.cut(placed, |(place, _)| place.as_str());
        let generations = page.iter().map(|(_, it)| self.generation_to_wire(it)).collect();
        Ok(v1::ListGenerationsResponse { generations, next_page_token })
    }

    async fn roll_back(
        self,
        _: Call,
        request: v1::RollbackTemplateRequest,
    ) -> Result<v1::Template, Refusal> {
        let mut fields = Fields::default();
        let id = fields.template("name", &request.name);
        fields.request_id(&request.request_id);
        if request.generation < 0 {
            fields.wrong("generation", "it is negative");
        }
        let id = fields.required(id)?;
        let etag = &request.etag;
        let made = self.manager.roll_back_template(&id, request.generation, etag).await?;
        Ok(self.template_to_wire(&made))
    }

    async fn templates(
        &self,
        _: Call,
        request: v1::ListTemplatesRequest,
    ) -> Result<v1::ListTemplatesResponse, Refusal> {
        let filter = Filter::parse(&request.filter, FILTER)?;
        let page = Page::of("templates", &request.filter, request.page_size, &request.page_token)?;
        let templates = self.manager.templates().into_iter().filter(|it| {
            filter.matches(|field| match field {
                "state" => Some(template::state_name(it).into()),
                _ => Some(it.provider.as_str().into()),
            })
        });
        let (templates, next_page_token) = page.cut(templates, |it| it.id.as_str());
        let templates = templates.iter().map(|it| self.template_to_wire(it)).collect();
        Ok(v1::ListTemplatesResponse { templates, next_page_token })
    }

    async fn remove_template(
        self,
        _: Call,
        request: v1::DeleteTemplateRequest,
    ) -> Result<(), Refusal> {
        let mut fields = Fields::default();
        let id = fields.template("name", &request.name);
        fields.request_id(&request.request_id);
        let id = fields.required(id)?;
        Ok(self.manager.delete_template(&id, &request.etag).await?)
    }
}

#[tonic::async_trait]
impl TemplateService for Services {
    async fn create_template(
        &self,
        request: Request<v1::CreateTemplateRequest>,
    ) -> Answer<Operation> {
        let services = self.clone();
        let handle = move |call, request| services.make_template(call, request);
        self.replays.answer("CreateTemplate", request, handle).await
    }

    async fn update_template(
        &self,
        request: Request<v1::UpdateTemplateRequest>,
    ) -> Answer<Operation> {
        let services = self.clone();
        let handle = move |call, request| services.change_template(call, request);
        self.replays.answer("UpdateTemplate", request, handle).await
    }

    async fn import_template(
        &self,
        request: Request<v1::ImportTemplateRequest>,
    ) -> Answer<v1::Template> {
        let services = self.clone();
        let handle = move |call, request| services.import(call, request);
        self.replays.answer("ImportTemplate", request, handle).await
    }

    async fn get_template(&self, request: Request<v1::GetTemplateRequest>) -> Answer<v1::Template> {
        answer(request, |call, request| self.get_one_template(call, request)).await
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Answer<v1::ListTemplatesResponse> {
        answer(request, |call, request| self.templates(call, request)).await
    }

    async fn list_generations(
        &self,
        request: Request<v1::ListGenerationsRequest>,
    ) -> Answer<v1::ListGenerationsResponse> {
        answer(request, |call, request| self.generations(call, request)).await
    }

    async fn delete_template(&self, request: Request<v1::DeleteTemplateRequest>) -> Answer<()> {
        let services = self.clone();
        let handle = move |call, request| services.remove_template(call, request);
        self.replays.answer("DeleteTemplate", request, handle).await
    }

    async fn rollback_template(
        &self,
        request: Request<v1::RollbackTemplateRequest>,
    ) -> Answer<v1::Template> {
        let services = self.clone();
        let handle = move |call, request| services.roll_back(call, request);
        self.replays.answer("RollbackTemplate", request, handle).await
    }
}
