//! Files that are fetched, wherever in a message they stand.

use model::change::{Change, RecordedChange, fold};
use model::context::Changes;
use model::event::{Attachment, AttachmentState};

use super::given::*;
use crate::media::MediaOutcome;
use crate::testing::{Database, on_both};

on_both!(
    a_file_that_came_later_is_fetched_like_others,
    the_same_source_twice_is_fetched_once,
    other_accounts_files_are_not_claimed,
);

fn photo() -> Attachment {
    Attachment::at("photo.png", "image/png", "https://example.org/photo.png")
}

fn here() -> MediaOutcome {
    MediaOutcome::Here {
        media_type: "image/jpeg".to_owned(),
        size_bytes: 4,
        sha256: model::id::sha256_hex(b"jpeg"),
    }
}

async fn a_file_that_came_later_is_fetched_like_others(database: &Database) {
    let store = database.store().await;
    store.commit(&arrival(1)).await.unwrap();
    let added = RecordedChange {
        id: "evt_1".to_owned(),
        account: "support".to_owned(),
        external_id: external_id(1),
        message_id: Some(message_id(1)),
        change: Change::AttachmentsAdded {
            attachments: vec![photo()],
        },
        occurred_at: at(1),
        received_at: at(1),
        provider_sequence: None,
    };
    let original = store.message(&message_id(1)).await.unwrap().unwrap().message;
    let mut changes = Changes::default();
    changes
        .changed_messages
        .insert(message_id(1), fold(&original, [&added]));
    changes.message_changes.insert(added.id.clone(), added);
    store.commit(&changes).await.unwrap();
    let claimed = store.claim_media("support", at(2), at(3), 10).await.unwrap();
    assert_eq!((claimed.len(), &claimed[0].attachment), (1, &photo()));
    assert!(store.settle_media(&claimed[0], &here(), at(2)).await.unwrap());

    let stands = store
        .message(&message_id(1))
        .await
        .unwrap()
        .unwrap()
        .message
        .attachments;
    assert_eq!((stands.len(), stands[0].state()), (1, AttachmentState::Here));
    // Whoever folds the changes again finds it here too.
    let (original, history) = store.history(&message_id(1)).await.unwrap().unwrap();
    let (again, _) = fold(&original, &history);
    assert_eq!(again.attachments, stands);
    assert!(!store.is_unused(&stands[0].sha256).await.unwrap());
}

async fn the_same_source_twice_is_fetched_once(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    changes.messages[0].message.attachments = vec![photo(), Attachment::here("a", "text/plain", b"a"), photo()];
    store.commit(&changes).await.unwrap();
    assert_eq!(store.media_pending().await.unwrap(), 1);
    let claimed = store.claim_media("support", at(2), at(3), 10).await.unwrap();
    assert_eq!((claimed.len(), claimed[0].present_bytes), (1, 1));
    assert!(store.settle_media(&claimed[0], &here(), at(2)).await.unwrap());
    let stands = store
        .message(&message_id(1))
        .await
        .unwrap()
        .unwrap()
        .message
        .attachments;
    assert!(
        stands
            .iter()
            .all(|attachment| attachment.state() == AttachmentState::Here)
    );
    assert_eq!(store.media_pending().await.unwrap(), 0);
}

async fn other_accounts_files_are_not_claimed(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    changes.messages[0].message.attachments = vec![photo()];
    store.commit(&changes).await.unwrap();
    assert_eq!(
        store.accounts_with_due_media(at(0)).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(store.accounts_with_due_media(at(2)).await.unwrap(), ["support"]);
    assert!(store.claim_media("shop", at(2), at(3), 10).await.unwrap().is_empty());
    let claimed = store.claim_media("support", at(2), at(3), 10).await.unwrap();
    let retry = MediaOutcome::Retry { at: at(60) };
    assert!(store.settle_media(&claimed[0], &retry, at(2)).await.unwrap());
    assert!(
        store
            .claim_media("support", at(59), at(90), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.claim_media("support", at(60), at(90), 10).await.unwrap()[0].attempts,
        2
    );
}
