//! What the console's JSON is, as an OpenAPI document. Types and their words are the code's own.

use std::sync::LazyLock;

use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{calls, history, idle, money, now, plan};

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// The document.
pub(super) async fn show() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|s| s.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let paths = json!({
        "/spillway/api/openapi.json": {"get": {
            "operationId": "openapi",
            "summary": "This document.",
            "responses": responses(&json!({"type": "object"}), false),
        }},
        "/spillway/api/now": {"get": {
            "operationId": "now",
            "summary": "Each model and its deployments in the last minute, and which are marked.",
            "responses": responses(&reference::<now::Now>(&mut schemas), false),
        }},
        "/spillway/api/history": {"get": {
            "operationId": "history",
            "summary": "The last hour, day or week: what all instances counted.",
            "parameters": parameters::<history::Wish>(),
            "responses": responses(&reference::<history::History>(&mut schemas), true),
        }},
        "/spillway/api/calls": {"get": {
            "operationId": "calls",
            "summary": "The last calls that failed or were slow; with an id or app any call.",
            "parameters": parameters::<calls::Wish>(),
            "responses": responses(&reference::<calls::Calls>(&mut schemas), true),
        }},
        "/spillway/api/money": {"get": {
            "operationId": "money",
            "summary": "What a month costs, by app.",
            "parameters": parameters::<money::Wish>(),
            "responses": responses(&reference::<money::Money>(&mut schemas), true),
        }},
        "/spillway/api/idle": {"get": {
            "operationId": "idle",
            "summary": "When provisioned throughput is idle, by hour of the week.",
            "responses": responses(&reference::<idle::IdleWeek>(&mut schemas), true),
        }},
        "/spillway/api/what-if": {"get": {
            "operationId": "whatIf",
            "summary": "What another number of PTUs, or other limits, would have come to in the last four weeks.",
            "parameters": parameters::<plan::Wish>(),
            "responses": responses(&reference::<plan::WhatIf>(&mut schemas), true),
        }},
        "/spillway/metrics": {"get": {
            "operationId": "metrics",
            "summary": "This instance's counters since its start, as Prometheus text.",
            "responses": {
                "200": {
                    "description": "The metrics.",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                "401": error("Nothing was shown, or what was shown is not known."),
                "403": error("What was shown is not an administrator's."),
            },
        }},
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Spillway's console",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Figures for operators and finance. Percentages are of 100, times RFC 3339 in UTC.",
        },
        "paths": paths,
        "security": [{"key": []}, {"token": []}],
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

fn reference<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// A query's parameters: the fields of the type that it is read into.
fn parameters<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let none = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object);
    let fields = fields.unwrap_or(&none).iter().map(|(name, field)| {
        json!({
            "name": name,
            "in": "query",
            "required": false,
            "description": field.get("description"),
            "schema": field,
        })
    });
    fields.collect()
}

fn responses(schema: &Value, reads_store: bool) -> Value {
    let good = json!({
        "description": "The figures.",
        "content": {"application/json": {"schema": schema}},
    });
    let mut responses = vec![
        ("200", good),
        (
            "401",
            error("Nothing was shown, or what was shown is not known."),
        ),
        ("403", error("What was shown is not an administrator's.")),
    ];
    if reads_store {
        let wrong = error("A parameter is wrong; the message says which.");
        responses.push(("400", wrong));
        responses.push(("503", error("The store can't be read.")));
    }
    let responses = responses.into_iter();
    Value::Object(
        responses
            .map(|(status, answer)| (status.to_owned(), answer))
            .collect(),
    )
}

fn error(description: &str) -> Value {
    let text = json!({"type": "string"});
    let error = json!({
        "type": "object",
        "required": ["code", "message", "type"],
        "properties": {"code": text, "message": text, "type": text, "param": {"type": ["string", "null"]}},
    });
    let body = json!({"type": "object", "required": ["error"], "properties": {"error": error}});
    json!({"description": description, "content": {"application/json": {"schema": body}}})
}
