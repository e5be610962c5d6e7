//! The contract may grow; it may not change under those who speak an older one.
//! In: the descriptor set of this build and the golden one. Out: every incompatible change, by name.
//! After a compatible addition write the golden set anew:
//! `LIGHTER_WRITE_GOLDEN=1 cargo test -p lighter-proto`; it refuses to record an incompatible one.

#![allow(clippy::unwrap_used)]

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything a peer may rely on: its full name, and what it must go on to be.
type Contract = BTreeMap<String, String>;

fn contract(set: &FileDescriptorSet) -> Contract {
    let mut contract = Contract::new();
    for file in &set.file {
        let package = file.package().to_owned();
        file.message_type.iter().for_each(|message| add_message(&mut contract, &package, message));
        file.enum_type.iter().for_each(|found| add_enum(&mut contract, &package, found));
        for service in &file.service {
            let name = format!("service {package}.{}", service.name());
            for method in &service.method {
                let sides = (method.client_streaming(), method.server_streaming());
                let is = format!("{} -> {}, streams {sides:?}", method.input_type(), method.output_type());
                contract.insert(format!("{name}, method {}", method.name()), is);
            }
            contract.insert(name, String::new());
        }
    }
    contract
}

fn add_message(contract: &mut Contract, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let oneof = oneof.map(|index| message.oneof_decl[index as usize].name());
        let is = format!(
            "number {}, {:?} {:?} {}, optional {}, oneof {oneof:?}",
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
            field.proto3_optional()
        );
        contract.insert(format!("message {name}, field {}", field.name()), is);
    }
    message.nested_type.iter().for_each(|nested| add_message(contract, &name, nested));
    message.enum_type.iter().for_each(|found| add_enum(contract, &name, found));
    contract.insert(format!("message {name}"), String::new());
}

fn add_enum(contract: &mut Contract, scope: &str, found: &EnumDescriptorProto) {
    let name = format!("enum {scope}.{}", found.name());
    for value in &found.value {
        contract.insert(format!("{name}, value {}", value.name()), format!("number {}", value.number()));
    }
    contract.insert(name, String::new());
}

/// What a peer of the old contract would stumble over.
fn incompatibilities(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let new = contract(new);
    let changes = contract(old).into_iter().filter_map(|(name, was)| match new.get(&name) {
        None => Some(format!("{name} is gone")),
        Some(is) if *is != was => Some(format!("{name} was {was}; is {is}")),
        Some(_) => None,
    });
    changes.collect()
}

fn golden_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/lighter.v1.binpb")
}

#[test]
fn the_contract_is_compatible_with_the_golden_one() {
    let built = FileDescriptorSet::decode(lighter_proto::FILE_DESCRIPTOR_SET).unwrap();
    let path = golden_path();
    let write = std::env::var_os("LIGHTER_WRITE_GOLDEN").is_some();
    if path.exists() || !write {
        let golden = FileDescriptorSet::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
        let changes = incompatibilities(&golden, &built);
        assert!(changes.is_empty(), "incompatible changes of the contract: {changes:#?}");
    }
    if write {
        std::fs::write(&path, lighter_proto::FILE_DESCRIPTOR_SET).unwrap();
    }
}

fn field(name: &str, number: i32, r#type: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(r#type.into()),
        label: Some(Label::Optional.into()),
        ..Default::default()
    }
}

fn small() -> FileDescriptorProto {
    let value = EnumValueDescriptorProto { name: Some("ON".into()), number: Some(1), options: None };
    let method = MethodDescriptorProto {
        name: Some("Get".into()),
        input_type: Some(".p.A".into()),
        output_type: Some(".p.A".into()),
        ..Default::default()
    };
    FileDescriptorProto {
        package: Some("p".into()),
        message_type: vec![
            DescriptorProto {
                name: Some("A".into()),
                field: vec![field("x", 1, Type::Uint32)],
                ..Default::default()
            },
            DescriptorProto { name: Some("B".into()), ..Default::default() },
        ],
        enum_type: vec![EnumDescriptorProto {
            name: Some("E".into()),
            value: vec![value],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("S".into()),
            method: vec![method],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// What comparing says after one change.
fn after(change: impl FnOnce(&mut FileDescriptorProto)) -> Vec<String> {
    let (old, mut new) = (small(), small());
    change(&mut new);
    incompatibilities(&FileDescriptorSet { file: vec![old] }, &FileDescriptorSet { file: vec![new] })
}

#[test]
fn every_kind_of_incompatible_change_is_caught() {
    let caught = [
        after(|file| file.message_type[0].field.clear()),
        after(|file| file.message_type[0].field[0].number = Some(2)),
        after(|file| file.message_type[0].field[0].name = Some("y".into())),
        after(|file| file.message_type[0].field[0].r#type = Some(Type::String.into())),
        after(|file| file.message_type[0].field[0].label = Some(Label::Repeated.into())),
        after(|file| file.message_type[0].field[0].proto3_optional = Some(true)),
        after(|file| drop(file.message_type.pop())),
        after(|file| file.enum_type[0].value.clear()),
        after(|file| file.enum_type[0].value[0].number = Some(2)),
        after(|file| file.enum_type.clear()),
        after(|file| file.service[0].method.clear()),
        after(|file| file.service[0].method[0].server_streaming = Some(true)),
        after(|file| file.service[0].method[0].input_type = Some(".p.B".into())),
        after(|file| file.service.clear()),
        after(|file| file.package = Some("q".into())),
    ];
    for (index, changes) in caught.iter().enumerate() {
        assert!(!changes.is_empty(), "change {index} was not caught");
    }
    assert_eq!(caught[0], ["message p.A, field x is gone"]);
}

#[test]
fn additions_are_no_incompatible_changes() {
    let found = after(|file| {
        file.message_type[0].field.push(field("y", 2, Type::String));
        file.message_type.push(DescriptorProto { name: Some("C".into()), ..Default::default() });
        let value = EnumValueDescriptorProto { name: Some("OFF".into()), number: Some(2), options: None };
        file.enum_type[0].value.push(value);
        let method = MethodDescriptorProto { name: Some("Put".into()), ..Default::default() };
        file.service[0].method.push(method);
    });
    assert!(found.is_empty(), "{found:?}");
}
