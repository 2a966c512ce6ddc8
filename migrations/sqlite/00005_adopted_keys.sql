-- +goose Up

-- What a key was called in its backend that zonemint did not make but took over;
-- empty for the keys that it makes. It is written before the key is looked for, so
-- that another replica can go on.
ALTER TABLE signing_keys ADD COLUMN adopted text NOT NULL DEFAULT '';
