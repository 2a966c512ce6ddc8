-- +goose Up

-- The dataplanes that an API token is narrowed to, a JSON array of names and of
-- beginnings of names; empty: it is not narrowed so.
ALTER TABLE api_tokens ADD COLUMN dataplanes text NOT NULL DEFAULT '[]';
