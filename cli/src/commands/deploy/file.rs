//! Files that `deploy` reads: JSON, or YAML with one or more documents.
//! In: text. Out: what each document wants. Never: reads meaning into the members; the control plane
//! names what it refuses.

use crate::failure::Failure;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What one document wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The input of register-task-definition.
    pub task_definition: Option<Value>,
    /// The input of create-service.
    pub service: Option<Map<String, Value>>,
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::Refused {
        message: message.into(),
        next: "lighter deploy --help says what a file holds".to_owned(),
    }
}

/// Every document; JSON is YAML.
pub fn parse(text: &str) -> Result<Vec<Document>, Failure> {
    values(text)?.into_iter().map(document).collect()
}

/// The only document, as an object.
pub fn one(text: &str) -> Result<Map<String, Value>, Failure> {
    match <[Value; 1]>::try_from(values(text)?) {
        Ok([Value::Object(members)]) => Ok(members),
        _ => Err(wrong("the file must hold one object")),
    }
}

fn values(text: &str) -> Result<Vec<Value>, Failure> {
    let mut values = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(Value::Null) => (),
            Ok(value) => values.push(value),
            Err(error) => return Err(wrong(format!("the file is neither JSON nor YAML: {error}"))),
        }
    }
    if values.is_empty() { Err(wrong("the file is empty")) } else { Ok(values) }
}

fn document(value: Value) -> Result<Document, Failure> {
    let Value::Object(mut members) = value else { return Err(wrong("each document must be an object")) };
    if members.contains_key("serviceName") {
        return Ok(Document { service: Some(members), ..Document::default() });
    }
    let task_definition = members.remove("taskDefinition");
    let service = match members.remove("service") {
        Some(Value::Object(service)) => Some(service),
        None => None,
        Some(_) => return Err(wrong("service: must be an object")),
    };
    if let Some(name) = members.keys().next() {
        return Err(wrong(format!("{name}: there is no such member; there are taskDefinition and service")));
    }
    if task_definition.as_ref().is_some_and(|definition| !definition.is_object()) {
        return Err(wrong("taskDefinition: must be an object; a reference stands in service"));
    }
    if service.as_ref().is_some_and(|service| !service.contains_key("serviceName")) {
        return Err(wrong("service.serviceName: is required"));
    }
    if task_definition.is_none() && service.is_none() {
        return Err(wrong("there is neither taskDefinition nor service"));
    }
    Ok(Document { task_definition, service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_json_and_several_documents() {
        let two = parse("taskDefinition: {family: web}\nservice:\n  serviceName: web\n---\nserviceName: x\n")
            .unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two[0].task_definition, Some(serde_json::json!({"family": "web"})));
        assert_eq!(two[1].service.as_ref().unwrap()["serviceName"], "x");
        assert_eq!(parse(r#"{"service": {"serviceName": "x"}}"#).unwrap()[0].service, two[1].service);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "empty"),
            ("a: [", "neither"),
            ("servce: {}", "servce"),
            ("service: {desiredCount: 1}", "serviceName"),
            ("taskDefinition: web", "taskDefinition"),
            ("- 1", "object"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(word), "{text}");
        }
    }
}
