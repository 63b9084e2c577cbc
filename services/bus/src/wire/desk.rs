//! Announcements: values for the desk topic.

use model::context::Announcement;

use super::event::moment_to_proto;
use super::proto::conversation::v1 as pb;
use super::proto::google::protobuf as wkt;

/// The announcement as protobuf knows it.
pub(super) fn announcement_to_proto(announcement: &Announcement) -> pb::Announcement {
    pb::Announcement {
        subject: announcement.subject.clone(),
        version: announcement.version,
        r#type: announcement.kind.clone(),
        occurred_at: Some(moment_to_proto(announcement.occurred_at)),
        data: Some(struct_to_proto(&announcement.data)),
    }
}

/// A value that is no object stands under `value`.
fn struct_to_proto(data: &serde_json::Value) -> wkt::Struct {
    let fields = match data {
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), value_to_proto(value)))
            .collect(),
        serde_json::Value::Null => Default::default(),
        other => [("value".to_owned(), value_to_proto(other))].into(),
    };
    wkt::Struct { fields }
}

fn value_to_proto(value: &serde_json::Value) -> wkt::Value {
    use wkt::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(values) => Kind::ListValue(wkt::ListValue {
            values: values.iter().map(value_to_proto).collect(),
        }),
        serde_json::Value::Object(_) => Kind::StructValue(struct_to_proto(value)),
    };
    wkt::Value { kind: Some(kind) }
}
