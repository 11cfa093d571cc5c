CREATE TABLE lingyang_ledger_campaign (
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        plan_id BIGINT NOT NULL,
        host VARCHAR(2000) NOT NULL,
        app_key VARCHAR(200) NOT NULL,
        key_fingerprint VARCHAR(32) NOT NULL,
        identity_version INTEGER,
        finished_by VARCHAR(32),
        finished_max_tries INTEGER,
        opened_at DOUBLE PRECISION NOT NULL,
        facts TEXT,
        PRIMARY KEY (campaign, generation));
INSERT INTO lingyang_ledger_campaign VALUES('30bf708cf3c99ef09a20e20c102eb76f',1,'finished',1,'https://gateway.test','app','071b08ab33914a79bfeacac9bf121da9',2,'26cb4d9dbbfd36bc35e0d4227a06442a',0,1.79596974638146448131e+09,NULL);
INSERT INTO lingyang_ledger_campaign VALUES('32ea6a47bfd5a640e665fce3a1d58f47',1,'again',1,'https://gateway.test','app','071b08ab33914a79bfeacac9bf121da9',2,'26cb4d9dbbfd36bc35e0d4227a06442a',0,1.79596974649750614166e+09,NULL);
INSERT INTO lingyang_ledger_campaign VALUES('32ea6a47bfd5a640e665fce3a1d58f47',2,'again',1,'https://gateway.test','app','071b08ab33914a79bfeacac9bf121da9',2,NULL,NULL,1.79596974661479115483e+09,NULL);
INSERT INTO lingyang_ledger_campaign VALUES('d273aefa7662764cd7352b40e3ca9370',1,'open',1,'https://gateway.test','app','071b08ab33914a79bfeacac9bf121da9',2,NULL,NULL,1.79596974668964219092e+09,'{"limit": {"until": 1700000200}, "numbers": {"o9": 2}}');
CREATE TABLE lingyang_ledger_recipient (
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        recipient VARCHAR(32) NOT NULL,
        biz_id TEXT NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        place INTEGER NOT NULL,
        state VARCHAR(12) NOT NULL,
        task_id VARCHAR(20),
        PRIMARY KEY (campaign, generation, recipient),
        UNIQUE (campaign, generation, task_unique_code, place));
INSERT INTO lingyang_ledger_recipient VALUES('30bf708cf3c99ef09a20e20c102eb76f',1,'deae2d4d75857c1081f113bcfc950dca','F1','f1',0,'accepted','101');
INSERT INTO lingyang_ledger_recipient VALUES('30bf708cf3c99ef09a20e20c102eb76f',1,'1fc81e937de057e3f6ddb3e6b8fde62a','客户-F2','f1',1,'rejected',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('32ea6a47bfd5a640e665fce3a1d58f47',1,'7b778e4c1d1f33c90c619ed9bda321bb','G1','g1',0,'accepted','201');
INSERT INTO lingyang_ledger_recipient VALUES('32ea6a47bfd5a640e665fce3a1d58f47',1,'48c6e3d042649ef6adcadb471794e27c','G2','g1',1,'accepted',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('32ea6a47bfd5a640e665fce3a1d58f47',2,'7b778e4c1d1f33c90c619ed9bda321bb','G1','g2',0,'accepted','202');
INSERT INTO lingyang_ledger_recipient VALUES('32ea6a47bfd5a640e665fce3a1d58f47',2,'48c6e3d042649ef6adcadb471794e27c','G2','g3',0,'in_doubt',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'16a36e86f6fed5d465ff332511a0ce1a','A1','o1',0,'accepted','301');
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'a791366f6f6201254edcac9ec72017b1','R1','o1',1,'rejected',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'b79f477f6d435116155b112145574824','N1','o1',2,'not_executed',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'33a123e5d474e8f3495a7c304f171842','D1','o1',3,'in_doubt',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'2265f5336d7b6037b5b75ace727a6c48','D2','o3',0,'in_doubt',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'2a5f06422d35ac8977cbf311a3178de2','N2','o2',0,'in_doubt',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'2da09e1fac71f1257e0efcb158f2d71e','N3','o2',1,'in_doubt',NULL);
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'5b92cc87f82fe7b24861d80945674e45','客户-P1','p1',0,'accepted','401');
INSERT INTO lingyang_ledger_recipient VALUES('d273aefa7662764cd7352b40e3ca9370',1,'acbbb742c7524cecdec7557d60e4a19a','P2','p1',1,'in_doubt',NULL);
CREATE TABLE lingyang_ledger_request (
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        batch_num VARCHAR(100),
        struct_digest VARCHAR(64) NOT NULL,
        written_at DOUBLE PRECISION NOT NULL,
        worker VARCHAR(32) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        writes BIGINT NOT NULL,
        intents INTEGER DEFAULT 1 NOT NULL,
        open_for DOUBLE PRECISION,
        PRIMARY KEY (campaign, generation, task_unique_code));
INSERT INTO lingyang_ledger_request VALUES('30bf708cf3c99ef09a20e20c102eb76f',1,'f1','7','f1f1',1700000000.5,'0299b369f44b3079005c10994510d878','d3403b05695449bfa162c203155b6337',2,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('32ea6a47bfd5a640e665fce3a1d58f47',1,'g1','7','g1g1',1700000000.5,'ee5c69569b4bdbc0c9ce3b059e781806','24e52633fabb44bd8fc50f2d2acacb41',2,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('32ea6a47bfd5a640e665fce3a1d58f47',2,'g2','7','g2g2',1700000000.5,'ee5c69569b4bdbc0c9ce3b059e781806','3b271af205a44d1f936cd2ab45544b51',2,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('32ea6a47bfd5a640e665fce3a1d58f47',2,'g3','7','g3g3',1700000000.5,'ee5c69569b4bdbc0c9ce3b059e781806','3b271af205a44d1f936cd2ab45544b51',1,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('d273aefa7662764cd7352b40e3ca9370',1,'o1','7','o1o1',1700000000.5,'d842fcbbd0868a9c492f796912376c4f','241a0fe033de41d6a6bc12d4b5d3817e',2,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('d273aefa7662764cd7352b40e3ca9370',1,'o3',NULL,'o3o3',1700000000.5,'d842fcbbd0868a9c492f796912376c4f','241a0fe033de41d6a6bc12d4b5d3817e',1,1,70.0);
INSERT INTO lingyang_ledger_request VALUES('d273aefa7662764cd7352b40e3ca9370',1,'o2','7','o2o2',1700000100.5,'d842fcbbd0868a9c492f796912376c4f','241a0fe033de41d6a6bc12d4b5d3817e',1,2,70.0);
INSERT INTO lingyang_ledger_request VALUES('d273aefa7662764cd7352b40e3ca9370',1,'p1','7','p1p1',1700000000.5,'4e3d597175138c5a9acbbf4dca8be7f3','724b02350be44e39be694015b3cd6d1d',2,1,70.0);
CREATE TABLE lingyang_ledger_worker (
        worker VARCHAR(32) NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        knows_past INTEGER NOT NULL,
        ended INTEGER DEFAULT 0 NOT NULL,
        writes BIGINT NOT NULL,
        claimed_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (worker));
INSERT INTO lingyang_ledger_worker VALUES('0299b369f44b3079005c10994510d878','finished','d3403b05695449bfa162c203155b6337',1,1,5,1.7959697463583123684e+09);
INSERT INTO lingyang_ledger_worker VALUES('ee5c69569b4bdbc0c9ce3b059e781806','again','3b271af205a44d1f936cd2ab45544b51',1,0,9,1.79596974659459948544e+09);
INSERT INTO lingyang_ledger_worker VALUES('d842fcbbd0868a9c492f796912376c4f','open','241a0fe033de41d6a6bc12d4b5d3817e',1,0,7,1.79596974667428183557e+09);
INSERT INTO lingyang_ledger_worker VALUES('4e3d597175138c5a9acbbf4dca8be7f3','open','724b02350be44e39be694015b3cd6d1d',1,1,4,1.79596974676067733765e+09);
